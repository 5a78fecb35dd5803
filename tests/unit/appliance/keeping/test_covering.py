"""Coverage as it is found: sites, jobs, repositories and catalog together; and what the command says of it."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.cli import app, commands
from appliance.cli.app import CONTEXT
from appliance.jobs.coverage import Kind
from appliance.keeping.copying import copy_run
from appliance.keeping.covering import coverage
from appliance.keeping.maintenance import copy_repository
from appliance.wiring import Services
from catalog.jobs.policy import CopyTo, Policy, Selection
from catalog.jobs.values import Cause, JobRun, JobRunState, Task, TaskKind, TaskState
from mounter.volumes.network import NetworkVolume
from proxy.errors import HostUnreachable, SnapshotFailed
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.model import APPLIANCE, Consistency, Level, MachineConfiguration, Reason, ReasonCode, RestorePoint
from proxy.repository.records import Health
from tests.unit.appliance.keeping.sealed_points import NOW, appliance, key, seal

pytestmark = pytest.mark.slow

YOUNG, OLD = NOW - timedelta(hours=3), NOW - timedelta(days=3)


@pytest.fixture
def site() -> MemoryHypervisor:
    """Machines "web" (m1), "db" (m2) and "new" (m3)."""
    made = MemoryHypervisor()
    for identity, name in (("m1", "web"), ("m2", "db"), ("m3", "new")):
        made.add(name, {"vda": bytes(4096)}, identity=identity)
    return made


@pytest.fixture
def services(tmp_path: Path, site: MemoryHypervisor) -> Iterator[Services]:
    """A job for "web" and "db" that wants copies in "vault", which holds none yet."""
    vault = f'[[copy_to]]\nname = "vault"\npath = "{tmp_path}/vault"\nkey_file = "{key(tmp_path / "vault.key")}"\n'
    with appliance(tmp_path / "site", f"{vault}[files]\nindex = false\n") as made:
        made.__dict__["hypervisor"] = Sites([site], lambda _configuration, _new: None)
        with made.jobs.transaction() as unit:
            select = Selection(include=("name=web", "name=db"))
            unit.jobs.add("nightly", Policy(select=select, copy_to=(CopyTo(name="vault"),)), NOW)
        copy_run(made, "vault", [], make=True)
        yield made


def kinds(services: Services) -> dict[str, list[Kind]]:
    return {each.name: [finding.kind for finding in each.findings] for each in coverage(services).machines}


def test_every_machine_is_held_against_its_jobs_and_its_restore_points(services: Services) -> None:
    young = seal(services.repository, YOUNG, machine="m1", name="web")
    seal(services.repository, OLD, machine="m2", name="db")
    copy_run(services, "vault")
    found = coverage(services)
    assert kinds(services) == {"web": [], "db": [Kind.TOO_OLD], "new": [Kind.NO_JOB, Kind.NO_POINT]}
    web = next(each for each in found.machines if each.name == "web")
    assert (web.point, web.copies, web.jobs, web.covered) == (young.id, ("vault",), ("nightly",), True)
    assert (found.covered, found.silent, found.problems) == (False, {}, ())
    assert next(each for each in coverage(services, 100.0).machines if each.name == "db").covered


def test_a_job_that_is_disabled_protects_nobody(services: Services) -> None:
    with services.jobs.transaction() as unit:
        unit.jobs.enable("nightly", False, NOW)
    assert all(found[0] is Kind.NO_JOB for found in kinds(services).values())


def test_a_copy_that_is_not_there_is_a_gap_and_one_that_cannot_be_looked_at_is_told_once(
    services: Services, tmp_path: Path
) -> None:
    seal(services.repository, OLD, machine="m1", name="web")
    copy_run(services, "vault")
    seal(services.repository, YOUNG, machine="m1", name="web")
    assert kinds(services)["web"] == [Kind.NOT_COPIED]
    (tmp_path / "vault").rename(tmp_path / "away")
    found = coverage(services)
    assert [problem.partition(":")[0] for problem in found.problems] == ["vault could not be looked at"]
    assert kinds(services)["web"] == []
    assert not found.covered


def test_the_newest_good_point_counts_and_what_is_newer_is_told(services: Services, tmp_path: Path) -> None:
    good = seal(services.repository, YOUNG - timedelta(hours=3), machine="m1", name="web")
    damaged = seal(services.repository, YOUNG - timedelta(hours=2), machine="m1", name="web")
    doubtful = seal(services.repository, YOUNG - timedelta(hours=1), machine="m1", name="web")
    lost = seal(services.repository, YOUNG, machine="m1", name="web")
    ledger = services.repository.ledger
    ledger.note_health(damaged, Health.DAMAGED)
    ledger.doubt(doubtful, "the change tracking lied")
    (file,) = (tmp_path / "site" / "repo" / "points").glob(f"*/{lost.id}")
    file.write_bytes(file.read_bytes()[:-1])
    web = next(each for each in coverage(services).machines if each.name == "web")
    assert web.point == good.id
    told = {finding.kind: finding.text for finding in web.findings}
    assert "1 newer restore points cannot be read" in told[Kind.UNREADABLE]
    assert told[Kind.NEWEST_NOT_GOOD] == (
        f"restore point {doubtful.id} is newer and cannot be counted on: the change tracking lied"
    )


def test_machines_that_are_nowhere_any_more_are_named_only_if_every_host_answered(
    services: Services, site: MemoryHypervisor
) -> None:
    gone = seal(services.repository, OLD, machine="m9", name="retired")
    image = gone.images[0]
    own = RestorePoint(
        *("", "appliance-1", "lanfree", "h", "a1", OLD, Level.FULL, Consistency.CRASH, (image,)),
        configuration=MachineConfiguration(APPLIANCE, ""),
    )
    services.repository.seal(own)
    found = coverage(services)
    assert [(each.name, each.newest) for each in found.former] == [("retired", gone.id)]
    site.silent.add("h2")
    found = coverage(services)
    assert (found.former, [each.name for each in found.unseen]) == ((), ["retired"])
    assert set(found.silent) == {"h2"}
    assert not found.covered


def test_a_point_of_the_future_covers_nothing(services: Services) -> None:
    seal(services.repository, OLD, machine="m1", name="web")
    future = seal(services.repository, NOW + timedelta(days=700), machine="m1", name="web")
    seal(services.repository, NOW + timedelta(days=700), machine="m2", name="db")
    found = {each.name: each for each in coverage(services).machines}
    assert [finding.kind for finding in found["web"].findings][:2] == [Kind.TOO_OLD, Kind.NEWEST_NOT_GOOD]
    assert f"restore point {future.id} is newer" in found["web"].findings[1].text
    assert [finding.kind for finding in found["db"].findings] == [Kind.NO_GOOD_POINT]
    assert "dated in the future (2028-10-22 12:00 UTC)" in found["db"].findings[0].text


def test_a_copy_in_which_damage_was_found_is_none(services: Services) -> None:
    point = seal(services.repository, YOUNG, machine="m1", name="web")
    copy_run(services, "vault")
    assert kinds(services)["web"] == []
    with copy_repository(services, "vault") as vault:
        vault.ledger.note_health(vault.point(point.id), Health.DAMAGED)
    assert kinds(services)["web"] == [Kind.NOT_COPIED]


def test_another_second_repository_than_it_was_is_a_problem(services: Services, tmp_path: Path) -> None:
    seal(services.repository, YOUNG, machine="m1", name="web")
    copy_run(services, "vault")
    (tmp_path / "vault").rename(tmp_path / "unmounted")
    copy_run(services, "vault", make=True)
    (tmp_path / "vault").rename(tmp_path / "new")
    (tmp_path / "unmounted").rename(tmp_path / "vault")
    (problem,) = coverage(services).problems
    assert "vault could not be looked at" in problem
    assert "until now" in problem


def test_a_site_that_shows_nothing_is_not_covered(services: Services, site: MemoryHypervisor) -> None:
    for machine in ("m1", "m2", "m3"):
        site.remove(machine)
    assert coverage(services).problems == ()
    seal(services.repository, YOUNG, machine="m1", name="web")
    found = coverage(services)
    assert found.problems == ("no host shows any machine, and the repository has restore points of 1",)
    assert not found.covered


def test_when_no_host_answers_that_is_the_finding(services: Services, site: MemoryHypervisor) -> None:
    seal(services.repository, OLD, machine="m1", name="web")
    site.fail(1, HostUnreachable("memory", "no route"), call="machines")
    found = coverage(services)
    assert (found.machines, [each.name for each in found.unseen]) == ((), ["web"])
    assert found.silent
    assert not found.covered


def test_failures_and_network_volumes_come_from_the_catalog(services: Services) -> None:
    point = seal(services.repository, YOUNG, machine="m1", name="web")
    older = seal(services.repository, OLD, machine="m1", name="web")
    for one, source in ((older, "filer:/old"), (point, "filer:/home")):
        with services.catalog.transaction() as unit:
            unit.restore_points.add(one)
        services.catalog.index(one.id, [], network=[NetworkVolume("nfs", source, "/home", "/etc/fstab")])
    with services.catalog.transaction() as unit:
        unit.runs.start("r1", "m1", "web", "backup", YOUNG - timedelta(hours=1))
        unit.runs.finish("r1", YOUNG, error=None)
        for run, start in (("r2", NOW - timedelta(hours=2)), ("r3", NOW - timedelta(hours=1))):
            unit.runs.start(run, "m1", "web", "backup", start)
            unit.runs.finish(run, NOW, error=SnapshotFailed("web", f"no room for {run}"))
        unit.runs.start("r4", "m1", "web", "restore", NOW)
    web = next(each for each in coverage(services).machines if each.name == "web")
    told = {finding.kind: finding.text for finding in web.findings}
    assert told[Kind.NETWORK_VOLUME].startswith("nfs filer:/home (/home) is used over the guest's network")
    assert "no room for r3" in told[Kind.LAST_RUN_FAILED]


def test_a_machine_whose_turn_never_came_says_why(services: Services) -> None:
    seal(services.repository, OLD, machine="m1", name="web")
    copy_run(services, "vault")
    with services.jobs.transaction() as unit:
        job = unit.jobs.get("nightly")
        run = JobRun("j1", job.id, job.name, job.policy, Cause.SCHEDULE, NOW, JobRunState.RUNNING, NOW)
        unit.runs.begin(run)
        keys = ("machine:m1",)
        unit.tasks.add([Task("j1-1", "j1", TaskKind.BACKUP, TaskState.WAITING, machine="m1", keys=keys)])
        unit.tasks.stop("j1", NOW, [Reason(ReasonCode.WINDOW_CLOSED)])
    web = next(each for each in coverage(services).machines if each.name == "web")
    assert [(finding.kind, finding.text) for finding in web.findings][1:] == [
        (Kind.LAST_RUN_FAILED, "2026-11-22 12:00 UTC, stopped: window-closed")
    ]


def test_rules_that_are_none_are_told_and_the_other_jobs_count(services: Services) -> None:
    with services.jobs.transaction() as unit:
        unit.jobs.add("broken", Policy(select=Selection(include=("colour=red",))), NOW)
        unit.jobs.add("far", Policy(copy_to=(CopyTo(name="attic"),)), NOW)
    found = coverage(services)
    assert [problem.partition(":")[0] for problem in found.problems] == ["job broken", "job far"]
    assert [each.jobs for each in found.machines if each.name == "web"] == [("nightly",)]


@pytest.fixture
def lanfree(
    services: Services, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """``lanfree(*words)`` over these services: exit code, and what was printed."""

    @contextmanager
    def opened() -> Iterator[Services]:
        yield services

    def run(*words: str) -> tuple[int, str]:
        commands.register(words)
        monkeypatch.setattr(CONTEXT, "services", opened)
        monkeypatch.setattr(sys, "argv", ["lanfree", *words])
        capfd.readouterr()
        return app.run(), capfd.readouterr().out

    return run


def test_the_exit_code_says_whether_all_is_covered(
    services: Services, site: MemoryHypervisor, lanfree: Callable[..., tuple[int, str]]
) -> None:
    code, said = lanfree("coverage")
    assert code == 7
    assert "! new: no-job:" in said
    assert "3 machines, 3 not covered" in said
    for identity, name in (("m1", "web"), ("m2", "db")):
        seal(services.repository, YOUNG, machine=identity, name=name)
    site.remove("m3")
    copy_run(services, "vault")
    code, said = lanfree("coverage")
    assert (code, "2 machines, 0 not covered" in said) == (0, True)
    assert lanfree("coverage", "--objective", "1")[0] == 7


def test_a_document_and_a_table_for_spreadsheets_say_the_same(
    services: Services, site: MemoryHypervisor, lanfree: Callable[..., tuple[int, str]]
) -> None:
    point = seal(
        services.repository, YOUNG, machine="m1", name="web", reasons=[Reason(ReasonCode.QUIESCE_NO_AGENT, "no agent")]
    )
    site.add("=HYPERLINK(evil)", {"vda": bytes(4096)}, identity="m4")
    code, said = lanfree("--json", "coverage")
    document = json.loads(said)
    assert (code, document["covered"]) == (7, False)
    web = next(each for each in document["machines"] if each["name"] == "web")
    assert (web["point"], web["covered"], web["age"]) == (point.id, False, 3.0)
    assert [each["kind"] for each in web["findings"]] == ["less-consistent", "not-copied"]
    code, said = lanfree("coverage", "--csv")
    rows = {row["identity"]: row for row in csv.DictReader(io.StringIO(said))}
    assert code == 7
    assert (rows["m1"]["covered"], rows["m1"]["restore_point"], rows["m1"]["age_hours"]) == ("no", point.id, "3.0")
    assert "less-consistent: application consistent only: quiesce-no-agent (no agent)" in rows["m1"]["gaps"]
    assert rows["m4"]["machine"] == "'=HYPERLINK(evil)"
    code, said = lanfree("--json", "coverage", "--gaps")
    assert {each["name"] for each in json.loads(said)["machines"]} == {"web", "db", "new", "=HYPERLINK(evil)"}
