import time

import pytest

from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.quiesce import GuestAgent, Thawing, judged
from proxy.hypervisor.kvm.records import Records
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import Consistency, ReasonCode
from proxy.state_directory import StateDirectory

GOOD = {"request": "run-1.abc", "ok": True, "apps": ["50-db.sh"], "failed": "", "exit": 0}


def test_only_a_confirmed_hook_makes_it_application_consistent():
    verdict = judged(GOOD, "run-1.abc")
    assert verdict.consistency is Consistency.APPLICATION
    assert (verdict.reason.code, verdict.reason.detail) == (ReasonCode.QUIESCED_HOOKS_CONFIRMED, "50-db.sh")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (GOOD | {"request": "run-1.old"}, ReasonCode.QUIESCED_UNCONFIRMED),
        (GOOD | {"request": ""}, ReasonCode.QUIESCED_UNCONFIRMED),
        (GOOD | {"ok": "true"}, ReasonCode.QUIESCED_UNCONFIRMED),
        (GOOD | {"ok": 1}, ReasonCode.QUIESCED_UNCONFIRMED),
        (GOOD | {"apps": "50-db.sh"}, ReasonCode.QUIESCED_UNCONFIRMED),
        (GOOD | {"apps": []}, ReasonCode.QUIESCED_NO_HOOKS),
        (GOOD | {"ok": False, "failed": "50-db.sh", "exit": 7}, ReasonCode.QUIESCED_HOOK_FAILED),
        ([], ReasonCode.QUIESCED_UNCONFIRMED),
        (None, ReasonCode.QUIESCED_UNCONFIRMED),
    ],
)
def test_anything_else_is_file_system_consistent_at_most(answer, code):
    verdict = judged(answer, "run-1.abc")
    assert (verdict.consistency, verdict.reason.code) == (Consistency.FILESYSTEM, code)


def test_a_failed_hook_is_named_with_its_exit_code():
    verdict = judged(GOOD | {"ok": False, "failed": "50-db.sh", "exit": 7}, "run-1.abc")
    assert verdict.reason.detail == "50-db.sh ended with 7"


def test_a_hostile_guest_gets_neither_control_characters_nor_length_into_our_words():
    verdict = judged(GOOD | {"ok": False, "failed": "\x1b[2J\n" + "x" * 10_000, "exit": []}, "run-1.abc")
    assert "\x1b" not in verdict.reason.detail and "\n" not in verdict.reason.detail
    assert len(verdict.reason.detail) < 200


@pytest.fixture
def unheard(tmp_path):
    """The agent of a guest that may be frozen, on a host that does not answer, and the mark that says so."""
    records = Records(StateDirectory(tmp_path))
    records.note_freeze("m")
    host = Host(KvmHost("h1", f"qemu+unix:///system?socket={tmp_path}/none", str(tmp_path)))
    return GuestAgent(Domain(host, "m"), records), records


@pytest.mark.slow
def test_waiting_for_a_guest_that_never_answers_ends_and_leaves_its_mark_for_the_sweep(unheard, caplog):
    agent, records = unheard
    thawing = Thawing()
    thawing.begin(agent, "web")
    started = time.monotonic()
    thawing.finish(0.3)
    assert 0.3 <= time.monotonic() - started < 5
    thawing.stop("m")
    assert records.maybe_frozen() == ["m"]
    assert ["waiting" in m or "may be frozen" in m for m in caplog.messages] == [True, True]
    assert all("web" in message for message in caplog.messages)


def test_nobody_waits_for_a_guest_that_is_frozen_by_somebody_else_now(unheard):
    agent, records = unheard
    thawing = Thawing()
    thawing.begin(agent, "web")
    thawing.stop("m")
    started = time.monotonic()
    thawing.finish(30.0)
    assert time.monotonic() - started < 5
    assert records.maybe_frozen() == ["m"]


def test_a_guest_is_left_alone_once_it_is_somebody_elses_to_thaw(unheard):
    agent, records = unheard
    assert agent.thaw(30.0, lambda: False) is False
    assert records.maybe_frozen() == ["m"]
