"""What a guest in memory answers when it is asked to quiesce, by the same rules as the real driver's."""

from enum import StrEnum

from proxy.errors import QuiesceFailed
from proxy.model import Consistency, PowerState, QuiescePolicy, Reason, ReasonCode


class Guest(StrEnum):
    """How the guest behaves when it is asked to quiesce."""

    CONFIRMS = "confirms"
    NO_AGENT = "no-agent"
    NO_HOOKS = "no-hooks"
    HOOK_FAILS = "hook-fails"
    HANGS = "hangs"


_ANSWERS = {
    Guest.CONFIRMS: (Consistency.APPLICATION, ReasonCode.QUIESCED_HOOKS_CONFIRMED),
    Guest.NO_HOOKS: (Consistency.FILESYSTEM, ReasonCode.QUIESCED_NO_HOOKS),
    Guest.HOOK_FAILS: (Consistency.FILESYSTEM, ReasonCode.QUIESCED_HOOK_FAILED),
    Guest.NO_AGENT: (Consistency.CRASH, ReasonCode.QUIESCE_NO_AGENT),
    Guest.HANGS: (Consistency.CRASH, ReasonCode.QUIESCE_TIMEOUT),
}


def quiesced(name: str, state: PowerState, guest: Guest, policy: QuiescePolicy) -> tuple[Consistency, Reason]:
    """What the label of a snapshot is. Raises ``QuiesceFailed`` for policy ``require``."""
    if state is PowerState.OFF:
        return Consistency.FILESYSTEM, Reason(ReasonCode.MACHINE_OFF_CLEAN)
    if state is PowerState.PAUSED:
        consistency, code = Consistency.CRASH, ReasonCode.MACHINE_PAUSED
    elif state is PowerState.SUSPENDED:
        consistency, code = Consistency.CRASH, ReasonCode.MACHINE_SUSPENDED
    elif policy is QuiescePolicy.NEVER:
        consistency, code = Consistency.CRASH, ReasonCode.QUIESCE_NOT_ASKED
    else:
        consistency, code = _ANSWERS[guest]
    if policy is QuiescePolicy.REQUIRE and consistency is Consistency.CRASH:
        raise QuiesceFailed(name, code.value)
    return consistency, Reason(code)
