"""What people are told of runs by a proxy that really serves."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.telling.lookout import Lookout
from catalog.jobs.values import JobRunState
from tests.integration.serving.fleet import Fleet, until
from tests.unit.appliance.telling.receivers import Hook

pytestmark = [pytest.mark.tools, pytest.mark.slow]

EVENTS = '["done", "attention", "failed", "stopped", "skipped", "repository", "coverage"]'


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as receiver:
        yield receiver


@pytest.fixture
def telling(tmp_path: Path, hook: Hook) -> Iterator[Fleet]:
    """A fleet that tells a webhook everything."""
    way = f'[[notify]]\nname = "tickets"\nkind = "webhook"\nurl = "{hook.url}"\nevents = {EVENTS}\n'
    made = Fleet(tmp_path, way)
    yield made
    made.close()


def told(fleet: Fleet, hook: Hook) -> list[dict[str, object]]:
    """Documents, once all is quiet. The fleet's own services share the proxy's state directory."""
    assert fleet.idle()
    fleet.services.telling.deliver_due("tickets")
    return [json.loads(body) for _, _, body in hook.posts]


def test_a_run_is_told_once_with_its_bytes_and_its_report_is_kept(telling: Fleet, hook: Hook) -> None:
    telling.machines(4)
    telling.job()
    telling.start()
    until(telling.ended, "the job run has ended")
    (run,) = telling.runs()
    (document,) = told(telling, hook)
    assert (document["kind"], document["run"]) == ("done", run.id)
    facts = document["facts"]
    assert isinstance(facts, dict)
    assert facts["machines"]["done"] == 4
    assert facts["bytes"]["read"] == 4 * 64 * 1024
    (page,) = (telling.base / "looking-on" / "reports").iterdir()
    text = page.read_text()
    assert all(f"m{number:03d}" in text for number in range(4))
    assert "<svg" in text


def test_a_run_that_could_not_even_begin_is_told(telling: Fleet, hook: Hook) -> None:
    telling.machines(1)
    telling.job(before=({"command": ["false"]},))
    telling.start()
    until(telling.ended, "the job run has ended")
    (document,) = told(telling, hook)
    assert document["kind"] == "failed"
    assert "hook-failed" in str(document["text"])


def test_a_run_that_was_skipped_is_told(telling: Fleet, hook: Hook) -> None:
    telling.machines(1)
    telling.job(blackout=({"first": "2000-01-01", "last": "2199-12-31", "why": "no nights any more"},))
    with telling.services.jobs.transaction() as unit:
        (job,) = unit.jobs.list()
        assert job.policy.schedule is not None
        schedule = job.policy.schedule.model_copy(update={"missed": "skip"})
        policy = job.policy.model_copy(update={"schedule": schedule})
        unit.jobs.change(job.name, policy, job.revision, job.seen)
    telling.start()
    until(telling.ended, "the run was skipped")
    assert telling.runs()[0].state is JobRunState.SKIPPED
    (document,) = told(telling, hook)
    assert document["kind"] == "skipped"
    assert "no nights any more" in str(document["text"])


def test_machines_of_a_fleet_that_nobody_serves_any_more_get_overdue(telling: Fleet, hook: Hook) -> None:
    telling.machines(2)
    telling.job(objective=0.0001)
    telling.start()
    until(telling.ended, "the job run has ended")
    assert telling.idle()
    Lookout(telling.services).coverage()
    kinds = [document["kind"] for document in told(telling, hook)]
    assert kinds == ["done", "coverage"]
