"""From an event to a receiver, through quiet hours, failures, restarts and kills."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.telling import events
from appliance.telling.report import JobRunReport, made
from appliance.telling.settings import Notify, Reports
from appliance.telling.telling import GIVEN_UP, LONGEST, SHORTEST, Telling
from catalog.jobs.values import JobRunState
from proxy.errors import HostUnreachable, RepositoryFull
from tests.unit.appliance.telling.nights import NIGHT, Clock, a_run
from tests.unit.appliance.telling.receivers import Hook, Listener, Mailbox

pytestmark = pytest.mark.slow

Make = Callable[..., Telling]


@pytest.fixture
def noted() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def make(tmp_path: Path, clock: Clock, noted: list[tuple[str, str]]) -> Make:
    def telling(*sections: Notify, keep: int = 10) -> Telling:
        return Telling(sections, Reports(keep=keep), tmp_path, clock, lambda run, text: noted.append((run, text)))

    return telling


@pytest.fixture
def ops(mailbox: Mailbox, tmp_path: Path) -> Callable[..., Notify]:
    file = tmp_path / "ops.url"
    file.write_text(mailbox.address)
    file.chmod(0o600)
    return lambda **changes: Notify(name="ops", url_file=file, timeout=60, **changes)


def tickets(hook: Hook, **changes: Any) -> Notify:
    return Notify(name="tickets", kind="webhook", url=hook.url, timeout=60, **changes)


def subjects(mailbox: Mailbox) -> list[str]:
    return [mail["Subject"].replace("\n", "") for mail in mailbox.mails]


@pytest.mark.slow
def test_a_night_with_many_failures_is_one_message(
    make: Make, ops: Any, mailbox: Mailbox, hook: Hook, failing: JobRunReport
) -> None:
    telling = make(ops(attach_report=True), tickets(hook))
    telling.tell(failing)
    assert [telling.deliver_due(name) for name in telling.names] == [None, None]
    (mail,) = mailbox.mails
    assert mail["Subject"] == "Lanfree: job nightly failed: 3 of 40 machines without a new restore point"
    text, report = (part.get_content() for part in mail.iter_parts())
    assert "2 machines failed, host-unreachable (web-037, web-038): host esx-2 cannot be reached: timed out" in text
    assert "<!DOCTYPE html>" in report
    ((_, _, body),) = hook.posts
    facts = json.loads(body)["facts"]
    assert facts["machines"] == {"selected": 40, "waiting": 0, "running": 0, "done": 37, "failed": 2, "stopped": 1}
    assert [machine["name"] for machine in facts["failed"]] == ["web-037", "web-038"]
    assert facts["bytes"]["stored"] == 37 * 300 * 1024 * 1024


def test_telling_returns_at_once_and_never_raises(make: Make, ops: Any, failing: JobRunReport, tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("no directory")
    (tmp_path / "reports").write_text("neither")
    telling = make(ops())
    delivered: list[Any] = []
    telling._ways["ops"].deliver = delivered.append  # type: ignore[method-assign]
    telling.tell(failing)
    assert delivered == [], "nobody waits for a way"


def test_each_event_is_a_line_of_the_log_whoever_is_told(
    make: Make, failing: JobRunReport, caplog: pytest.LogCaptureFixture
) -> None:
    make().tell(failing)
    (record,) = caplog.records
    assert (record.levelno, vars(record)["event"], vars(record)["job_run"]) == (
        logging.ERROR,
        "told-failed",
        failing.run.id,
    )


@pytest.mark.slow
def test_a_way_that_fails_is_asked_again_with_growing_waits_and_then_given_up(
    make: Make, hook: Hook, clock: Clock, failing: JobRunReport, noted: list[tuple[str, str]]
) -> None:
    telling = make(tickets(hook))
    hook.answer = 503
    telling.tell(failing)
    waits = []
    while due := telling.deliver_due("tickets"):
        waits.append(due - clock.now())
        clock.moment = due
    assert waits[:4] == [SHORTEST * 2**n for n in range(4)]
    assert max(waits) == LONGEST
    assert GIVEN_UP <= sum(waits, timedelta()) <= GIVEN_UP + LONGEST
    assert {headers["X-Lanfree-Delivery"] for _, headers, _ in hook.posts} == {json.loads(hook.posts[0][2])["id"]}
    ((run, text),) = noted
    assert run == failing.run.id
    assert "was not told to tickets" in text
    assert "503" in text


def test_a_way_that_works_again_is_told_what_waited(make: Make, hook: Hook, clock: Clock) -> None:
    telling = make(tickets(hook))
    hook.answer = 500
    telling.event(events.proxy_gone("p1", "proxy1", NIGHT))
    telling.deliver_due("tickets")
    hook.answer = 200
    clock.moment += SHORTEST
    assert make(tickets(hook)).deliver_due("tickets") is None, "another process goes on where one was killed"
    assert [json.loads(body)["kind"] for _, _, body in hook.posts] == ["proxy-gone", "proxy-gone"]


def test_who_does_not_take_one_message_is_not_asked_two_hundred_times(make: Make, hook: Hook, clock: Clock) -> None:
    telling = make(tickets(hook))
    hook.answer = 500
    for number in range(20):
        telling.event(events.proxy_gone(f"p{number}", "proxy1", NIGHT))
    telling.deliver_due("tickets")
    assert len(hook.posts) == 1
    hook.answer = 200
    clock.moment += SHORTEST
    assert telling.deliver_due("tickets") is None
    assert [json.loads(body)["about"] for _, _, body in hook.posts[1:]] == [f"proxy p{n}" for n in range(20)]


def test_a_message_that_was_told_before_a_kill_is_told_again_with_the_same_id(make: Make, hook: Hook) -> None:
    telling = make(tickets(hook))
    telling.event(events.proxy_gone("p1", "proxy1", NIGHT))
    (waiting,) = telling.waiting("tickets")
    kept = waiting.file.read_bytes()
    telling.deliver_due("tickets")
    waiting.file.write_bytes(kept)  # as if the process had died between the answer and the removal
    make(tickets(hook)).deliver_due("tickets")
    assert [headers["X-Lanfree-Delivery"] for _, headers, _ in hook.posts] == [waiting.id, waiting.id]


@pytest.mark.slow
def test_what_happens_in_quiet_hours_is_one_digest_afterwards_with_the_gravest_first(
    make: Make, ops: Any, mailbox: Mailbox, clock: Clock, failing: JobRunReport
) -> None:
    telling = make(ops(quiet_from="20:00", quiet_to="06:00"))
    attention = made(a_run(id="j2", job_name="hourly", state=JobRunState.ATTENTION, notes=("a host was silent",)), ())
    for number in range(6):
        telling.tell(replace(attention, run=replace(attention.run, id=f"j{number}")))
        clock.moment += timedelta(minutes=30)
    telling.tell(failing)
    due = telling.deliver_due("ops")
    assert mailbox.mails == []
    assert due is not None
    clock.moment = due
    assert telling.deliver_due("ops") is None
    (subject,) = subjects(mailbox)
    assert subject.startswith("Lanfree: 7 messages since 2026-11-22")
    assert "first: job nightly failed" in subject
    assert mailbox.mails[0].get_content().count("job hourly done, needs attention") == 6


def test_programs_get_each_message_for_itself(make: Make, hook: Hook, clock: Clock) -> None:
    telling = make(tickets(hook, quiet_from="20:00", quiet_to="06:00"))
    for number in range(3):
        telling.event(events.proxy_gone(f"p{number}", "proxy1", NIGHT))
    due = telling.deliver_due("tickets")
    assert due is not None
    clock.moment = due
    telling.deliver_due("tickets")
    assert [json.loads(body)["about"] for _, _, body in hook.posts] == [f"proxy p{n}" for n in range(3)]


def test_the_same_trouble_is_told_once_and_its_end(make: Make, hook: Hook, clock: Clock) -> None:
    telling = make(tickets(hook))
    for _ in range(50):
        telling.event(events.repository_trouble("/backup", "no space left in /backup", clock.now(), "free space"))
        clock.moment += timedelta(minutes=1)
    telling.event(events.repository_well("/backup", clock.now()))
    telling.event(events.repository_well("/backup", clock.now()))
    telling.deliver_due("tickets")
    assert [json.loads(body)["title"] for _, _, body in hook.posts] == [
        "Lanfree: trouble with repository /backup",
        "Lanfree: repository /backup works again",
    ]


def test_a_run_that_is_told_again_after_a_kill_is_told_once(make: Make, hook: Hook, failing: JobRunReport) -> None:
    for telling in (make(tickets(hook)), make(tickets(hook))):
        telling.tell(failing)
        telling.deliver_due("tickets")
    assert len(hook.posts) == 1


def test_machines_are_told_of_when_they_lose_their_protection_and_not_again_before_they_had_it_again(
    make: Make, hook: Hook, clock: Clock
) -> None:
    telling = make(tickets(hook))
    overdue: list[dict[str, str]] = [
        {"m1": "web"},
        {"m1": "web"},
        {"m1": "web", "m2": "db"},
        {},
        {"m1": "web"},
    ]
    for machines in overdue:
        telling.coverage("nightly", machines, 26.0)
        telling.deliver_due("tickets")
        clock.moment += timedelta(hours=12)
    assert [json.loads(body)["facts"]["machines"] for _, _, body in hook.posts] == [["web"], ["db"], ["web"]]


def test_trouble_of_a_repository_is_told_and_other_errors_are_the_runs_own(make: Make, hook: Hook) -> None:
    telling = make(tickets(hook))
    for error in (HostUnreachable("kvm1", "timed out"), RepositoryFull("/backup"), None, None):
        telling.repository("/backup", error)
    telling.deliver_due("tickets")
    assert [json.loads(body)["facts"].get("over") for _, _, body in hook.posts] == [False, True]


def test_in_the_background_each_way_is_told_and_one_that_hangs_keeps_no_other_waiting(
    make: Make, hook: Hook, ops: Any, mailbox: Mailbox
) -> None:
    held = threading.Event()
    telling = make(tickets(hook), ops())
    blocked = telling._ways["tickets"]
    deliver = blocked.deliver

    def hanging(message: Any) -> None:
        assert held.wait(120)
        deliver(message)

    blocked.deliver = hanging  # type: ignore[method-assign]
    with telling.started():
        telling.event(events.proxy_gone("p1", "proxy1", NIGHT))
        until(lambda: len(mailbox.mails) == 1)
        assert hook.posts == []
        held.set()
        until(lambda: len(hook.posts) == 1)


def test_what_is_written_down_just_before_the_end_is_still_told(
    make: Make, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "appliance.telling.telling._LAST", 120.0
    )  # a busy machine takes longer to post than people wait
    telling = make(tickets(hook))
    with telling.started():
        telling.event(events.proxy_gone("p1", "proxy1", NIGHT))
    assert len(hook.posts) == 1


def test_a_fault_in_a_library_is_one_more_failed_attempt(make: Make, hook: Hook) -> None:
    telling = make(tickets(hook))
    telling.event(events.proxy_gone("p1", "proxy1", NIGHT))

    def broken(_message: Any) -> None:
        raise ZeroDivisionError("secret in it")

    telling._ways["tickets"].deliver = broken  # type: ignore[method-assign]
    assert telling.deliver_due("tickets") == NIGHT + SHORTEST


def test_reports_are_kept_so_many_of_the_newest_under_harmless_names(make: Make, tmp_path: Path) -> None:
    telling = make(keep=3)
    for number in range(5):
        run = a_run(id=f"j{number}", job_name="../../etc/<passwd>", started_at=NIGHT + timedelta(hours=number))
        telling.tell(made(run, ()))
    kept = sorted(file.name for file in (tmp_path / "reports").iterdir())
    assert kept == [f"20261122T{21 + n}0000Z_etc-passwd_j{n}.html" for n in (2,)] + [
        "20261123T000000Z_etc-passwd_j3.html",
        "20261123T010000Z_etc-passwd_j4.html",
    ]


def test_without_reports_none_are_written_and_people_are_told_all_the_same(
    make: Make, ops: Any, mailbox: Mailbox, failing: JobRunReport, tmp_path: Path
) -> None:
    telling = make(ops(attach_report=True), keep=0)
    telling.tell(failing)
    telling.deliver_due("ops")
    assert len(mailbox.mails) == 1
    assert not (tmp_path / "reports").exists()


PROCESS = """
import sys
from pathlib import Path
from appliance.telling import events
from appliance.telling.settings import Notify, Reports
from appliance.telling.telling import Telling
from proxy.clock import SystemClock
state, url = sys.argv[1:]
clock = SystemClock()
telling = Telling([Notify(name="tickets", kind="webhook", url=url, timeout=60)], Reports(), Path(state), clock)
with telling.started():
    telling.event(events.proxy_gone("p1", "proxy1", clock.now()))
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_middle_of_telling_loses_nothing(
    make: Make, hook: Hook, clock: Clock, tmp_path: Path
) -> None:
    reached = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.recv(65536)
        reached.set()
        while connection.recv(65536):
            pass

    with Listener(hold) as deaf:
        argv = [sys.executable, "-c", PROCESS, str(tmp_path), f"http://127.0.0.1:{deaf.port}/"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
            assert reached.wait(120)
            process.kill()
    clock.moment = datetime.now(UTC)
    telling = make(tickets(hook))
    assert telling.deliver_due("tickets") is None
    assert [json.loads(body)["about"] for _, _, body in hook.posts] == ["proxy p1"]


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)
