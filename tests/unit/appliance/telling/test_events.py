from dataclasses import replace

import pytest

from appliance.telling import events
from appliance.telling.events import LINES, run_ended
from appliance.telling.kinds import EventKind
from appliance.telling.report import Item, JobRunReport, made
from catalog.jobs.values import JobRunState, TaskState
from proxy.model import Reason, ReasonCode
from tests.unit.appliance.telling.nights import NIGHT, a_point, a_run, a_task


def test_five_hundred_failed_machines_are_one_line() -> None:
    items = [Item(a_task(n, TaskState.FAILED, error="host-unreachable", message="timed out")) for n in range(500)]
    event = run_ended(made(a_run(state=JobRunState.FAILED, selected=500), items))
    assert event.title == "Lanfree: job nightly failed: 500 of 500 machines without a new restore point"
    assert (
        "500 machines failed, host-unreachable (web-000, web-001, web-002, web-003, web-004 and 495 more)" in event.text
    )
    assert len(event.lines) < 10


def test_very_many_different_problems_are_cut_and_counted() -> None:
    items = [Item(a_task(n, problems=(f"problem {n}",)), a_point(n)) for n in range(100)]
    event = run_ended(made(a_run(state=JobRunState.ATTENTION), items))
    assert len(event.lines) < LINES + 8
    assert event.lines[-1] == "- and 80 more: see 'lanfree job report j20261122210000-0badcafe'"
    assert event.facts["attention_count"] == 100


@pytest.mark.parametrize(
    ("state", "kind"),
    [(JobRunState.DONE, "done"), (JobRunState.STOPPED, "stopped"), (JobRunState.SKIPPED, "skipped")],
)
def test_each_end_of_a_run_has_its_kind(state: JobRunState, kind: str) -> None:
    assert run_ended(made(a_run(state=state), ())).kind == EventKind(kind)


def test_a_run_that_went_well_says_what_it_did_and_nothing_to_look_at() -> None:
    items = [Item(a_task(n), a_point(n)) for n in range(4)]
    event = run_ended(made(a_run(), items))
    assert event.title == "Lanfree: job nightly done: 4 machines"
    assert event.lines == (
        "Machines: 4 done",
        "Read 8.0 GiB in 2 h 00 min (1.1 MiB/s), stored 1.2 GiB; 0 B went through the hosts",
        "Began 2026-11-22 21:00 UTC, schedule; run j20261122210000-0badcafe",
    )


def test_a_skipped_run_says_why() -> None:
    reason = Reason(ReasonCode.PREVIOUS_RUN_UNDER_WAY, "run j1 goes on since 21:00")
    run = a_run(state=JobRunState.SKIPPED, reasons=(reason,), ended_at=NIGHT)
    event = run_ended(made(run, ()))
    assert event.title == "Lanfree: job nightly did not run"
    assert "- previous-run-under-way: run j1 goes on since 21:00" in event.lines


def test_names_of_strangers_are_harmless_in_titles_and_lines(failing: JobRunReport) -> None:
    hostile = replace(failing, run=replace(failing.run, job_name="x\r\nBcc: y\u202e"))
    event = run_ended(hostile)
    assert event.title.startswith("Lanfree: job x Bcc: y failed")
    assert all(line.isprintable() for line in event.lines)


def test_lost_coverage_names_machines_and_objective() -> None:
    event = events.coverage_lost("nightly", ["a", "b"], NIGHT, 26.0)
    assert event.title == "Lanfree: 2 machines of job nightly not protected any more"
    assert event.lines[0] == "No restore point within 26 hours: a, b."
    assert events.proxy_gone("p", "h", NIGHT, ["web"]).lines[1] == "Others go on with web."


def test_a_run_that_goes_on_can_be_reported_too() -> None:
    run = a_run(state=JobRunState.RUNNING, ended_at=None)
    event = run_ended(made(run, [Item(a_task(1, TaskState.RUNNING, ended_at=None))]))
    assert event.at == run.started_at
    assert "1 running" in event.lines[0]
