"""Several sites as one: KVM hosts and vCenters side by side, each machine answered for by the site that has it.

A site that is silent keeps nobody else's machines from being listed; it is named among the unreachable.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from proxy.closing import Closeable
from proxy.errors import ConfigurationError, HostUnreachable, LanfreeError, MachineNotFound
from proxy.extents import Extent
from proxy.meters import SeveralMeters
from proxy.model import (
    ChangeId,
    FrozenDisk,
    MachineConfiguration,
    MachineId,
    Reason,
    ReasonCode,
    RunId,
    Snapshot,
    SnapshotRequest,
    VirtualMachine,
)
from proxy.ports import Hypervisor, NewMachine


class Sites(Closeable):
    """The ``Hypervisor`` port over others. A machine that two sites show (one was moved between them) is the first one's.

    ``definer``: which site defines a machine of such a saved configuration; ``None`` if none does.
    """

    def __init__(
        self, sites: Sequence[Hypervisor], definer: Callable[[MachineConfiguration, NewMachine], Hypervisor | None]
    ) -> None:
        if not sites:
            raise ConfigurationError("[[host]]", "no hypervisor is configured", hint="'lanfree host add' names one")
        self._sites = tuple(sites)
        self.name = ", ".join(site.name for site in sites)
        self._definer = definer
        self._known: dict[MachineId, Hypervisor] = {}
        self._silent: dict[str, str] = {}

    def of(self, machine: MachineId) -> Hypervisor:
        """The site that has it. Raises ``MachineNotFound``; ``HostUnreachable`` if a silent one may have it."""
        known = self._known.get(machine)
        if known is not None:
            return known
        silent: HostUnreachable | None = None
        for site in self._sites:
            try:
                site.machine(machine)
            except MachineNotFound:
                continue
            except HostUnreachable as error:
                silent = silent or error
                continue
            self._known[machine] = site
            return site
        raise silent or MachineNotFound(machine)

    def machines(self) -> Sequence[VirtualMachine]:
        """See the port."""
        found: dict[MachineId, VirtualMachine] = {}
        self._silent = {}
        first: LanfreeError | None = None
        for site in self._sites:
            try:
                shown = site.machines()
            except LanfreeError as error:  # also a password that ended: the other sites' machines are none the worse
                first = first or error
                self._silent[site.name] = error.message
                continue
            self._silent.update(site.unreachable())
            for machine in shown:
                if machine.id not in found:
                    found[machine.id] = machine
                    self._known[machine.id] = site
        if first is not None and not found:
            raise first
        return list(found.values())

    def unreachable(self) -> Mapping[str, str]:
        """See the port; whole sites among them."""
        return dict(self._silent)

    def machine(self, machine: MachineId) -> VirtualMachine:
        """See the port."""
        try:
            return self.of(machine).machine(machine)
        except MachineNotFound:
            self._known.pop(machine, None)  # it moved to another site
            return self.of(machine).machine(machine)

    def configuration(self, machine: MachineId) -> MachineConfiguration:
        """See the port."""
        return self.of(machine).configuration(machine)

    def snapshot(self, request: SnapshotRequest) -> Snapshot:
        """See the port."""
        return self.of(request.machine).snapshot(request)

    def changed(self, snapshot: Snapshot, disk: FrozenDisk, since: ChangeId) -> Sequence[Extent]:
        """See the port."""
        return self.of(snapshot.machine).changed(snapshot, disk, since)

    def confirm(self, snapshot: Snapshot) -> None:
        """See the port."""
        self.of(snapshot.machine).confirm(snapshot)

    def release(self, snapshot: Snapshot, *, sealed: bool) -> Sequence[Reason]:
        """See the port."""
        return self.of(snapshot.machine).release(snapshot, sealed=sealed)

    def sweep(self, live: Callable[[], Collection[RunId]]) -> Sequence[Reason]:
        """See the port. A site that cannot be looked at keeps no other from it; the error is raised after all others, or told
        when something was found."""
        found: list[Reason] = []
        failed: list[LanfreeError] = []
        for site in self._sites:
            try:
                found += site.sweep(live)
            except LanfreeError as error:
                failed.append(error)
        if failed and not found:
            raise failed[0]
        found += [Reason(ReasonCode.SWEEP_INCOMPLETE, str(error)) for error in failed]
        return found

    def meters(self) -> SeveralMeters:
        """See the port: the counters of all sites together."""
        return SeveralMeters([site.meters() for site in self._sites])

    def check_define(self, configuration: MachineConfiguration, new: NewMachine) -> None:
        """See the port."""
        self._for(configuration, new).check_define(configuration, new)

    def define(self, configuration: MachineConfiguration, new: NewMachine) -> VirtualMachine:
        """See the port."""
        return self._for(configuration, new).define(configuration, new)

    def close(self) -> None:
        """Let go of all of them."""
        for site in self._sites:
            close = getattr(site, "close", None)
            if close is not None:
                close()

    def _for(self, configuration: MachineConfiguration, new: NewMachine) -> Hypervisor:
        found = self._definer(configuration, new)
        if found is None:
            raise ConfigurationError(
                new.name,
                f"no configured hypervisor defines a machine saved as {configuration.kind}",
                hint="restore its disks alone, or configure such a host",
            )
        return found
