"""Change tracking is switched on, once a machine, and only when it has no snapshot: with one, vSphere would begin to track in
the middle of a chain. It counts from the next snapshot on, which is the run's own."""

from proxy.hypervisor.vsphere import tasks
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refused
from proxy.hypervisor.vsphere.looking import Look
from proxy.model import Reason, ReasonCode

# Seconds: changing one setting takes a host a moment.
LIMIT = 300.0


def enable(vcenter: Vcenter, seen: Look) -> tuple[Reason, ...]:
    """What was done, or why not; nothing when it is on already. Without it a backup reads everything and never fails."""
    if seen.found.get("config.changeTrackingEnabled"):
        return ()
    if seen.found.get("capability.changeTrackingSupported") is False:
        return (_off(f"virtual hardware {seen.hardware} cannot track changes"),)
    if seen.has_snapshot:
        return (_off("it can only be switched on while the machine has no snapshot, and it has one"),)
    if seen.template:
        return (_off("a template's configuration is not changed"),)
    try:
        task = seen.object.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True))
        tasks.wait(vcenter, task, f"switch change tracking on for {seen.name}", limit=LIMIT)
    except Refused as error:
        return (_off(error.why),)
    return (Reason(ReasonCode.TRACKING_ENABLED, "it was off until now"),)


def _off(why: str) -> Reason:
    return Reason(ReasonCode.TRACKING_OFF, why)
