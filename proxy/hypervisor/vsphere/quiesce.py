"""What is asked of a guest before its disks are frozen, and what a snapshot is afterwards. Pure.

==========  =======================================================================  ===========================
step        what VMware Tools do                                                     success proves
==========  =======================================================================  ===========================
``vss``     Windows: VSS with its writers (``ctx_backup``), as a copy: no logs are   application-consistent
            truncated, other backups' chains go on
``tools``   Windows: VSS without writers. Others: ``pre-freeze-script``, sync, file  file systems are consistent
            systems frozen, ``post-thaw-script``
``none``    nothing                                                                  as if the power had failed
==========  =======================================================================  ===========================

Windows' writers only take part where the guest can tell its disks apart (``disk.EnableUUID``) and none is on IDE; without that
Tools quietly do less, so that the label must be less, too. Sources: vSphere Web Services API, VirtualMachineWindowsQuiesceSpec;
VMware's documentation of "Working with Microsoft Shadow Copy"; ``vssBackupType`` is VSS_BACKUP_TYPE of Microsoft's vss.h.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil
from typing import Any

from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.model import Consistency, PowerState, QuiescePolicy, Reason, ReasonCode

VSS_BT_COPY = 5

# Minutes that vSphere lets a quiesced snapshot take: less and more are refused.
LEAST_MINUTES, MOST_MINUTES = 5, 240


CLEAN = "clean"
"""In a mark: the machine was off, and the guest had shut itself down."""


class Step(StrEnum):
    """See the table above."""

    VSS = "vss"
    TOOLS = "tools"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Guest:
    """What is known of it now. ``clean``: the guest shut itself down; ``uuids``, ``ide``: see above."""

    state: PowerState
    tools: bool
    windows: bool
    clean: bool = False
    uuids: bool = True
    ide: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """What a restore point is, and why it is not better."""

    consistency: Consistency
    reason: Reason


@dataclass(frozen=True, slots=True)
class Failed:
    """A step that did not work."""

    step: Step
    error: Refused

    @property
    def late(self) -> bool:
        """The guest hangs rather than refuses: asking it for less would wait once more."""
        return self.error.refusal in {Refusal.TASK_TIMEOUT, Refusal.TIMEOUT}


def steps(guest: Guest, policy: QuiescePolicy) -> tuple[Step, ...]:
    """What to try, best first. Empty: the policy demands what this guest cannot give now."""
    if guest.state is not PowerState.RUNNING or policy is QuiescePolicy.NEVER or not guest.tools:
        given = label(Step.NONE, guest, policy, ()).consistency
        return () if policy is QuiescePolicy.REQUIRE and given is Consistency.CRASH else (Step.NONE,)
    quiesced = (Step.VSS, Step.TOOLS) if guest.windows else (Step.TOOLS,)
    return quiesced if policy is QuiescePolicy.REQUIRE else (*quiesced, Step.NONE)


def spec(step: Step, guest: Guest, seconds: float) -> Any:
    """``quiesceSpec`` of ``CreateSnapshotEx_Task``; ``None``: not quiesced."""
    if step is Step.NONE:
        return None
    minutes = min(max(ceil(seconds / 60), LEAST_MINUTES), MOST_MINUTES)
    if not guest.windows:
        return vim.vm.GuestQuiesceSpec(timeout=minutes)
    return vim.vm.WindowsQuiesceSpec(
        timeout=minutes,
        vssBackupType=VSS_BT_COPY,
        vssBackupContext="ctx_backup" if step is Step.VSS else "ctx_file_share_backup",
        vssBootableSystemState=True,
        vssPartialFileSupport=False,
    )


def label(step: Step, guest: Guest, policy: QuiescePolicy, failed: Sequence[Failed]) -> Label:
    """What a snapshot is that was made in this step after others ``failed``."""
    if guest.state is not PowerState.RUNNING:
        return _of_state(guest)
    if step is Step.VSS:
        return _of_vss(guest)
    if step is Step.TOOLS:
        if failed:
            detail = f"VSS writers did not take part: {failed[0].error.why}"
            return Label(Consistency.FILESYSTEM, Reason(ReasonCode.QUIESCED_HOOK_FAILED, detail))
        detail = "VMware Tools froze the file systems; whether scripts ran, they do not tell"
        return Label(Consistency.FILESYSTEM, Reason(ReasonCode.QUIESCED_UNCONFIRMED, detail))
    if policy is QuiescePolicy.NEVER:
        return Label(Consistency.CRASH, Reason(ReasonCode.QUIESCE_NOT_ASKED))
    if not guest.tools:
        return Label(Consistency.CRASH, Reason(ReasonCode.QUIESCE_NO_AGENT, "VMware Tools do not run"))
    return Label(Consistency.CRASH, why_failed(failed))


def word(step: Step, guest: Guest) -> str:
    """For the snapshot's mark: what ``resumed`` needs to know."""
    clean = guest.state is not PowerState.RUNNING and _of_state(guest).consistency is Consistency.FILESYSTEM
    return CLEAN if clean else step.value


def resumed(marked: str, guest: Guest, *, quiesced: bool) -> Label:
    """What a snapshot is of which only its mark is left and whether vSphere calls it ``quiesced``. The machine may have been
    started or stopped since then."""
    if marked == CLEAN:
        return Label(Consistency.FILESYSTEM, Reason(ReasonCode.MACHINE_OFF_CLEAN, "the guest had shut itself down"))
    if quiesced and marked in (Step.VSS, Step.TOOLS):
        return label(Step(marked), replace(guest, state=PowerState.RUNNING), QuiescePolicy.PREFER, ())
    why = "the proxy was interrupted before it was kept how the guest was quiesced"
    return Label(Consistency.CRASH, Reason(ReasonCode.QUIESCED_UNCONFIRMED, why))


def why_failed(failed: Sequence[Failed]) -> Reason:
    """Of a guest that was asked in vain."""
    code = ReasonCode.QUIESCE_TIMEOUT if any(each.late for each in failed) else ReasonCode.QUIESCE_FAILED
    return Reason(code, "; ".join(f"{each.step.value}: {each.error.why}" for each in failed))


def _of_vss(guest: Guest) -> Label:
    lacking = []
    if not guest.uuids:
        lacking.append("disk.EnableUUID is off")
    if guest.ide:
        lacking.append("a disk is on IDE")
    if lacking:
        detail = f"VSS writers take no part: {', '.join(lacking)}"
        return Label(Consistency.FILESYSTEM, Reason(ReasonCode.QUIESCED_NO_HOOKS, detail))
    return Label(Consistency.APPLICATION, Reason(ReasonCode.QUIESCED_HOOKS_CONFIRMED, "VSS with its writers"))


def _of_state(guest: Guest) -> Label:
    if guest.state is PowerState.SUSPENDED:
        why = "its memory is saved, its caches are not written"
        return Label(Consistency.CRASH, Reason(ReasonCode.MACHINE_SUSPENDED, why))
    if guest.state is PowerState.PAUSED:
        return Label(Consistency.CRASH, Reason(ReasonCode.MACHINE_PAUSED))
    if guest.clean:
        return Label(Consistency.FILESYSTEM, Reason(ReasonCode.MACHINE_OFF_CLEAN, "the guest shut itself down"))
    return Label(Consistency.CRASH, Reason(ReasonCode.MACHINE_OFF, "how it ended is not known"))
