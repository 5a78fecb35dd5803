"""Finding what dead runs left behind: snapshots with this installation's mark, machines that nobody may relocate.

Both are undone in the same way, by the run that made them. What has another installation's mark, or none, is never touched.
"""

from collections.abc import Callable, Collection

from proxy.errors import LanfreeError
from proxy.hypervisor.vsphere import collector
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.ownership import found_in
from proxy.hypervisor.vsphere.records import Records
from proxy.hypervisor.vsphere.release import Releaser
from proxy.model import MachineId, Reason, ReasonCode, RunId

Live = Callable[[], Collection[RunId]]
"""Gives the runs that somebody works on now."""


class Sweeper:
    """Undoes leftovers on one vCenter. One leftover that resists does not keep the others."""

    def __init__(self, vcenter: Vcenter, records: Records, by: str, releaser: Releaser) -> None:
        self._vcenter = vcenter
        self._records = records
        self._by = by
        self._releaser = releaser

    def sweep(self, live: Live) -> list[Reason]:
        """See ``Hypervisor.sweep``. What resisted is told as a reason, too. Raises ``HostUnreachable``."""
        found, reasons = self._find()
        now = set(live())
        for machine, run in sorted(found):
            if run in now or run in live():
                continue
            what = f"run {run} on machine {machine}"
            try:
                self._releaser.end_dead(machine, run)
                reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, what))
            except LanfreeError as error:
                reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"not yet, {what}: {error.message}"))
        return reasons

    def _find(self) -> tuple[set[tuple[MachineId, RunId]], list[Reason]]:
        """Before it is asked who lives, so that nothing in it is younger than the answer."""
        found: set[tuple[MachineId, RunId]] = set()
        reasons = []
        for run in self._records.runs():
            try:
                record = self._records.load(run)
            except LanfreeError as error:
                reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"not yet, run {run}: {error.message}"))
                continue
            if record is not None:
                found.add((record.machine, run))
        for one in collector.find(self._vcenter, vim.VirtualMachine, ("config.instanceUuid", "snapshot")):
            machine = str(one.get("config.instanceUuid") or "").lower()
            marks = [each.mark for each in found_in(one.get("snapshot"), machine)]
            found |= {(machine, mark.run) for mark in marks if mark.by == self._by}
        return found, reasons
