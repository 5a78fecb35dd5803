import pytest

from proxy.hypervisor.kvm.quiesce import judged
from proxy.model import Consistency, ReasonCode

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
