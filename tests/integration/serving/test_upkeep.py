"""What follows the backups of a job run: copies, verification, retention here and there; and a job that was removed."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.jobs.retention import job_id, made_by
from appliance.keeping.maintenance import copy_repository
from appliance.keeping.pruning import prune
from appliance.serving import scheduler
from catalog.jobs.values import Job, JobRunState, TaskKind, TaskState
from proxy.repository.records import Health
from tests.integration.serving.fleet import Fleet, until

pytestmark = pytest.mark.tools


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """With a second repository."""
    made = Fleet(tmp_path, f'[[copy_to]]\nname = "vault"\npath = "{tmp_path}/vault"\nunencrypted = true\n')
    yield made
    made.close()


def run_of(fleet: Fleet, job: Job) -> dict[str, TaskState]:
    """Begin one and wait for its end; its tasks that have no machine."""
    begun = scheduler.begin_now(fleet.services, job)
    until(fleet.ended, "the run has ended")
    newest = fleet.runs()[0]
    tasks = fleet.tasks()
    assert (newest.id, newest.state) == (begun.id, JobRunState.DONE), [(t.kind, t.message, t.problems) for t in tasks]
    return {f"{t.kind.value} {t.target}".strip(): t.state for t in tasks if t.kind is not TaskKind.BACKUP}


@pytest.mark.timeout(240)
def test_a_job_copies_verifies_and_keeps_its_points_by_its_rules_in_each_repository(fleet: Fleet) -> None:
    fleet.machines(2)
    copies = [{"name": "vault", "retention": {"last": 1}}]
    job = fleet.job(due=False, retention={"last": 2}, verify={"days": 1}, copy_to=copies)
    fleet.start()
    for _ in range(4):
        ended = run_of(fleet, job)
    done = TaskState.DONE
    assert ended == {"copy vault": done, "verify": done, "prune": done, "prune vault": done}
    repository = fleet.services.repository
    points = repository.points()
    # The two last, and the first: it is the newest that a verification found good, and the next one is due tomorrow.
    assert Counter(point.machine_name for point in points) == {"m000": 3, "m001": 3}
    assert {(made_by(point), job_id(point)) for point in points} == {("nightly", job.id)}
    newest = {point.machine: point for point in points}.values()
    with copy_repository(fleet.services, "vault") as vault:
        assert {point.id for point in vault.points()} == {point.id for point in newest}
    judged = [repository.ledger.health(point) for point in points]
    assert [known.health for known in judged if known is not None] == [Health.GOOD, Health.GOOD]
    with fleet.services.jobs.transaction() as unit:
        unit.jobs.remove("nightly")
    kept = [line.why for line in prune(fleet.services, apply=True, told=print) if line.rules == "job nightly"]
    assert sorted(kept) == sorted(2 * ["last good point", "last 2 of 2", "last good point, last 1 of 2"])
    assert len(repository.points()) == 6, "its points go on following its last policy"


@pytest.mark.timeout(240)
def test_a_second_repository_that_is_away_fails_its_task_and_is_caught_up_with_by_the_next_run(fleet: Fleet) -> None:
    fleet.machines(1)
    job = fleet.job(due=False, copy_to=[{"name": "vault"}], retries={"attempts": 1})
    fleet.start()
    run_of(fleet, job)
    vault = fleet.base / "vault"
    vault.rename(fleet.base / "away")
    vault.mkdir()  # as a mount that was lost leaves it
    scheduler.begin_now(fleet.services, job)
    until(fleet.ended, "the run without its second repository has ended")
    states = {task.kind: task.state for task in fleet.tasks()}
    assert (states[TaskKind.BACKUP], states[TaskKind.COPY]) == (TaskState.DONE, TaskState.FAILED)
    assert not (vault / "config").exists()
    shutil.rmtree(vault)
    (fleet.base / "away").rename(vault)
    run_of(fleet, job)
    with copy_repository(fleet.services, "vault") as there:
        assert {point.id for point in there.points()} == {point.id for point in fleet.services.repository.points()}
        assert len(there.points()) == 3
