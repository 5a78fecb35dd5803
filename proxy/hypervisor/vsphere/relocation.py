"""No Storage vMotion while a run reads a machine's blocks: its files would move away under the reader.

vCenter keeps methods disabled for a source that asked for it until the same source enables them, beyond sessions and its own
restarts. So the source is the run: what one run disabled, another one's end does not enable; and a sweep that knows the
run, from its record or from its snapshot's mark, can always undo it.
"""

from typing import Any

from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.internal import disable_methods, enable_methods
from proxy.model import Reason, ReasonCode, RunId

METHODS = ("RelocateVM_Task",)

WHY = "Lanfree reads the blocks of this machine's disks"

# Without it a run goes on all the same: a disk that moved is found out by ``confirm``, at the price of the run.
_GO_ON = frozenset({Refusal.NO_PERMISSION, Refusal.NOT_SUPPORTED, Refusal.ARGUMENT, Refusal.OTHER})


def source(run: RunId) -> str:
    """Who disables, for vCenter: it is shown to whoever tries to move the machine."""
    return f"lanfree-{run}"


def block(vcenter: Vcenter, machine: Any, run: RunId) -> Reason | None:
    """Disable. Returns why that was refused, if the run can go on without. Raises ``Refused``, ``HostUnreachable``."""
    try:
        disable_methods(vcenter, [machine], METHODS, source=source(run), why=WHY)
    except Refused as error:
        if error.refusal not in _GO_ON:
            raise
        return Reason(ReasonCode.RELOCATION_NOT_BLOCKED, error.why)
    return None


def allow(vcenter: Vcenter, machine: Any, run: RunId) -> None:
    """Undo ``block``; a machine that is gone, or one that the run did not block, is fine. Raises ``Refused``."""
    try:
        enable_methods(vcenter, [machine], METHODS, source=source(run))
    except Refused as error:
        if error.refusal is not Refusal.GONE:
            raise
