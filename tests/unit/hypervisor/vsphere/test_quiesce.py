"""What a guest is asked for, in which order, and what a snapshot may call itself afterwards."""

from dataclasses import replace

import pytest

from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.quiesce import (
    VSS_BT_COPY,
    Failed,
    Guest,
    Step,
    label,
    resumed,
    spec,
    steps,
    why_failed,
    word,
)
from proxy.model import Consistency, PowerState, QuiescePolicy, ReasonCode

NEVER, PREFER, REQUIRE = QuiescePolicy.NEVER, QuiescePolicy.PREFER, QuiescePolicy.REQUIRE
LINUX = Guest(PowerState.RUNNING, tools=True, windows=False)
WINDOWS = replace(LINUX, windows=True)
WITHOUT = replace(LINUX, tools=False)
OFF = replace(LINUX, state=PowerState.OFF, tools=False)
ASLEEP = replace(LINUX, state=PowerState.SUSPENDED, tools=False)


@pytest.mark.parametrize(
    ("guest", "policy", "wanted"),
    [
        (WINDOWS, PREFER, (Step.VSS, Step.TOOLS, Step.NONE)),
        (WINDOWS, REQUIRE, (Step.VSS, Step.TOOLS)),
        (LINUX, PREFER, (Step.TOOLS, Step.NONE)),
        (LINUX, REQUIRE, (Step.TOOLS,)),
        (LINUX, NEVER, (Step.NONE,)),
        (WITHOUT, PREFER, (Step.NONE,)),
        (WITHOUT, REQUIRE, ()),
        (ASLEEP, PREFER, (Step.NONE,)),
        (ASLEEP, REQUIRE, ()),
        (OFF, REQUIRE, ()),
        (replace(OFF, clean=True), REQUIRE, (Step.NONE,)),
    ],
)
def test_the_best_is_tried_first_and_nothing_that_the_policy_does_not_allow(guest, policy, wanted):
    assert steps(guest, policy) == wanted


def test_writers_take_part_as_a_copy_and_the_time_is_within_what_vsphere_takes():
    vss, tools = spec(Step.VSS, WINDOWS, 900), spec(Step.TOOLS, WINDOWS, 10)
    assert (vss.vssBackupContext, vss.vssBackupType, vss.timeout) == ("ctx_backup", VSS_BT_COPY, 15)
    assert (tools.vssBackupContext, tools.timeout) == ("ctx_file_share_backup", 5)
    assert spec(Step.TOOLS, LINUX, 10**6).timeout == 240
    assert not hasattr(spec(Step.TOOLS, LINUX, 60), "vssBackupType")
    assert spec(Step.NONE, LINUX, 60) is None


@pytest.mark.parametrize(
    ("step", "guest", "policy", "consistency", "code"),
    [
        (Step.VSS, WINDOWS, PREFER, Consistency.APPLICATION, ReasonCode.QUIESCED_HOOKS_CONFIRMED),
        (Step.VSS, replace(WINDOWS, uuids=False), PREFER, Consistency.FILESYSTEM, ReasonCode.QUIESCED_NO_HOOKS),
        (Step.VSS, replace(WINDOWS, ide=True), PREFER, Consistency.FILESYSTEM, ReasonCode.QUIESCED_NO_HOOKS),
        (Step.TOOLS, LINUX, PREFER, Consistency.FILESYSTEM, ReasonCode.QUIESCED_UNCONFIRMED),
        (Step.NONE, LINUX, NEVER, Consistency.CRASH, ReasonCode.QUIESCE_NOT_ASKED),
        (Step.NONE, WITHOUT, PREFER, Consistency.CRASH, ReasonCode.QUIESCE_NO_AGENT),
        (Step.NONE, ASLEEP, PREFER, Consistency.CRASH, ReasonCode.MACHINE_SUSPENDED),
        (Step.NONE, OFF, PREFER, Consistency.CRASH, ReasonCode.MACHINE_OFF),
        (Step.NONE, replace(OFF, clean=True), PREFER, Consistency.FILESYSTEM, ReasonCode.MACHINE_OFF_CLEAN),
    ],
)
def test_a_snapshot_is_called_what_was_proven_and_no_more(step, guest, policy, consistency, code):
    found = label(step, guest, policy, ())
    assert (found.consistency, found.reason.code) == (consistency, code)


def test_what_failed_before_is_the_reason_for_less():
    refused = Failed(Step.VSS, Refused("snapshot", "a writer failed", Refusal.QUIESCE))
    hung = Failed(Step.TOOLS, Refused("snapshot", "no answer", Refusal.TASK_TIMEOUT))
    tools = label(Step.TOOLS, WINDOWS, PREFER, [refused])
    none = label(Step.NONE, WINDOWS, PREFER, [refused, hung])
    assert (tools.consistency, tools.reason.code) == (Consistency.FILESYSTEM, ReasonCode.QUIESCED_HOOK_FAILED)
    assert "a writer failed" in tools.reason.detail
    assert (none.consistency, none.reason.code) == (Consistency.CRASH, ReasonCode.QUIESCE_TIMEOUT)
    assert why_failed([refused]).code is ReasonCode.QUIESCE_FAILED
    assert (refused.late, hung.late) == (False, True)


@pytest.mark.parametrize(
    ("step", "then", "now", "quiesced", "consistency"),
    [
        (Step.VSS, WINDOWS, WINDOWS, True, Consistency.APPLICATION),
        (Step.VSS, WINDOWS, OFF, True, Consistency.APPLICATION),
        (Step.VSS, WINDOWS, WINDOWS, False, Consistency.CRASH),
        (Step.TOOLS, LINUX, LINUX, True, Consistency.FILESYSTEM),
        (Step.NONE, LINUX, replace(OFF, clean=True), False, Consistency.CRASH),
        (Step.NONE, replace(OFF, clean=True), LINUX, False, Consistency.FILESYSTEM),
        (Step.NONE, OFF, replace(OFF, clean=True), False, Consistency.CRASH),
    ],
)
def test_after_an_interruption_only_what_was_marked_then_and_is_confirmed_counts(
    step, then, now, quiesced, consistency
):
    assert resumed(word(step, then), now, quiesced=quiesced).consistency is consistency
