"""KvmSite: the Hypervisor port over libvirt. Which host, which way, in which order; the parts are in the other modules.

Three ways to freeze a machine, named in ``Snapshot.method``:

``overlay``  guest writes go to an overlay, the base is read by the proxy; survives migration, power-off and a kill
``pull``     libvirt's backup job serves the frozen disks over NBD; ends with its emulator
``off``      nothing runs: the disks are read as they are, and ``confirm`` tells whether the machine stayed off
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from proxy.errors import ChangesUnknown, ConfigurationError, FormatError, RestoreRefused, UnderOverlay
from proxy.extents import Extent
from proxy.hypervisor.kvm import define
from proxy.hypervisor.kvm.answers import DomainState, Refusal, Refused
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.directory import Directory
from proxy.hypervisor.kvm.disk_sizes import DiskSizes
from proxy.hypervisor.kvm.freezing import SnapshotMaker
from proxy.hypervisor.kvm.guest_files import KvmGuestFiles
from proxy.hypervisor.kvm.hosts import Hosts, rank, state_of
from proxy.hypervisor.kvm.inventory import domain, shown_disk
from proxy.hypervisor.kvm.meters import KvmMeters
from proxy.hypervisor.kvm.overlays import found_on
from proxy.hypervisor.kvm.quiesce import Thawing
from proxy.hypervisor.kvm.records import Records
from proxy.hypervisor.kvm.release import ReadersGone, Releaser
from proxy.hypervisor.kvm.rolling import Rolling
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.hypervisor.kvm.sweep import Sweeper
from proxy.model import (
    ChangeId,
    FrozenDisk,
    MachineConfiguration,
    MachineId,
    PowerState,
    Reason,
    ReasonCode,
    RunId,
    Snapshot,
    SnapshotRequest,
    VirtualMachine,
)
from proxy.ports import NewMachine, StateStore
from proxy.units import MiB

# OVMF variables are 128 KiB to 4 MiB; whatever is larger is no NVRAM.
NVRAM_LIMIT = 16 * MiB


class KvmSite:
    """All KVM hosts among which a machine can move.

    ``state``: what must outlive the proxy; all proxies that back up these hosts need the same, since a sweep takes a run that
    it has not heard of for a dead one. ``readers_gone``: the interlock between readers of
    frozen disks and the merge that would change them under their hands; without one the caller sees to it.
    ``rolling_overlay``: machines, by identity or pattern of name, whose raw disks stay on overlays between backups.
    ``shared``: directories that all hosts have under the same path, for the names of places.
    """

    def __init__(
        self,
        hosts: Sequence[KvmHost],
        *,
        state: StateStore,
        readers_gone: ReadersGone | None = None,
        rolling_overlay: Collection[str] = (),
        shared: Sequence[Path] = (),
        name: str = "kvm",
    ) -> None:
        if len({host.name for host in hosts}) != len(hosts) or not hosts:
            raise ConfigurationError("host", "needs at least one entry, each with a name of its own")
        self.name = name
        self._hosts = Hosts(hosts)
        self._shared = tuple(shared)
        self._sizes = DiskSizes()
        self._unreachable: Mapping[str, str] = {}
        self._records = Records(state)
        rolls = Rolling(rolling_overlay, self._records)
        self._releaser = Releaser(self._hosts, self._records, rolls, readers_gone or _nobody_reads)
        self._thawing = Thawing()
        self._maker = SnapshotMaker(self._hosts, self._records, rolls, self._releaser, self._thawing)
        self._sweeper = Sweeper(self._hosts, self._records, rolls, self._releaser)

    def close(self) -> None:
        """Thaw what may still be frozen (waits for hooks that hang, ``quiesce.CLOSE_SECONDS`` at most), then hang up.

        The next call connects again.
        """
        try:
            self._thawing.finish()
        finally:
            self._hosts.close()

    def machines(self) -> Sequence[VirtualMachine]:
        """See the port."""
        answers, silent = self._hosts.ask(self._shown_all)
        self._unreachable = silent
        best: dict[MachineId, tuple[int, VirtualMachine]] = {}
        for shown in answers.values():
            for order, machine in shown:
                if machine.id not in best or order < best[machine.id][0]:
                    best[machine.id] = (order, machine)
        return sorted((machine for _, machine in best.values()), key=lambda m: m.name)

    def unreachable(self) -> Mapping[str, str]:
        """See the port."""
        return dict(self._unreachable)

    def machine(self, machine: MachineId) -> VirtualMachine:
        """See the port."""
        return self._shown_now(self._hosts.find(machine))

    def configuration(self, machine: MachineId) -> MachineConfiguration:
        """The definition for the next start as libvirt XML without passwords and without overlays of ours, and NVRAM."""
        place = self._hosts.find(machine)
        ours = place.host.owned.owns
        try:
            text = define.without_overlays(place.xml(inactive=True), ours)
        except FormatError:  # the saved definition leaves the chain out; the live one has it
            text = define.without_overlays(place.xml(), ours)
        path = define.nvram_path(text)
        nvram = Directory(place.host, str(path.parent)).read(path.name, NVRAM_LIMIT) if path else None
        return MachineConfiguration(define.KIND, text, nvram)

    def snapshot(self, request: SnapshotRequest) -> Snapshot:
        """See the port. ``Snapshot.frozen_seconds`` is an upper bound: the call that freezes, snapshots and thaws."""
        return self._maker.make(request)

    def changed(self, snapshot: Snapshot, disk: FrozenDisk, since: ChangeId) -> Sequence[Extent]:
        """Never known here: what changed is in the image (``Tracking.IMAGE``), read through the transport."""
        raise ChangesUnknown(disk.key, ReasonCode.TRACKING_NOT_READABLE, "the transport reads the image's bitmap")

    def confirm(self, snapshot: Snapshot) -> None:
        """See the port."""
        self._releaser.confirm(snapshot)

    def release(self, snapshot: Snapshot, *, sealed: bool) -> Sequence[Reason]:
        """See the port."""
        return self._releaser.release(snapshot, sealed=sealed)

    def sweep(self, live: Callable[[], Collection[RunId]]) -> Sequence[Reason]:
        """See the port."""
        return self._sweeper.sweep(live)

    def meters(self) -> KvmMeters:
        """See the port, and ``kvm.meters`` for what is counted."""
        return KvmMeters(self._hosts, self._shared)

    def check_define(self, configuration: MachineConfiguration, new: NewMachine) -> None:
        """See the port. ``define`` asks the same; what libvirt itself finds wrong in a definition, only it tells."""
        self._definable(configuration, new)

    def define(self, configuration: MachineConfiguration, new: NewMachine) -> VirtualMachine:
        """See the port. An existing machine is replaced only if it is the same identity, off on every host."""
        host, text = self._definable(configuration, new)
        path = define.nvram_path(text)
        if path is not None and configuration.nvram is not None:
            directory = Directory(host, str(path.parent))
            directory.delete(path.name)
            directory.write(path.name, configuration.nvram)
        try:
            return self._shown_now(host.define(text))
        except Refused as error:
            raise RestoreRefused(new.name, error.why) from None

    def guest_files(self, machine: MachineId, root: bytes) -> KvmGuestFiles:
        """Write files below ``root`` into the running guest; the caller closes it. Raises ``MachineNotFound``,
        ``GuestAgentUnavailable``, ``GuestRefused``."""
        place = self._hosts.find(machine)
        return KvmGuestFiles(place, domain(place.xml()).name, root)

    def _definable(self, configuration: MachineConfiguration, new: NewMachine) -> tuple[Host, str]:
        """The host and the definition for it. Raises ``RestoreRefused``."""
        host = self._hosts.named(new.host)
        if host is None:
            raise RestoreRefused(new.name, f"no host {new.host} is configured")
        try:
            text = define.new_definition(configuration, new)
            machine, saved = domain(text).machine, domain(configuration.text).machine
        except FormatError as error:
            raise RestoreRefused(new.name, error.message) from None
        self._refuse_taken(machine, new, host, known_before=machine == saved)
        return host, text

    def _refuse_taken(self, machine: MachineId, new: NewMachine, host: Host, *, known_before: bool) -> None:
        """``known_before``: it is the identity of the machine that was backed up, not one that was made just now."""
        name = new.name
        known, unheard = self._hosts.everywhere(machine)
        silent = sorted(set(unheard) - new.without_hosts)
        if silent and known_before:
            raise RestoreRefused(
                name,
                f"hosts {', '.join(silent)} are silent, and it may run there",
                hint="bring them back, say --without-host NAME if you know one to be dead, or restore beside it with --as",
            )
        for place in known:
            if place.host.name != host.name:
                why = f"machine {machine} is defined on {place.host.name}"
                raise RestoreRefused(name, why, hint="restore it there, or under a new identity")
            if place.state().power is not PowerState.OFF:
                raise RestoreRefused(
                    name, f"machine {machine} is not off on {place.host.name}", hint="shut it down first"
                )
            if found := found_on(place):
                raise UnderOverlay(name, found[0].key, found[0].path)
        holders, _ = self._hosts.ask(lambda host: host.has_name(name))
        for where, holder in holders.items():
            if holder is not None and holder != machine:
                raise RestoreRefused(name, f"{where} has another machine of that name", hint="choose another name")

    def _shown_all(self, host: Host) -> list[tuple[int, VirtualMachine]]:
        shown = []
        for place in host.domains():
            try:
                state = place.state()
                shown.append((rank(state), self._shown(place, state)))
            except Refused as error:
                if error.refusal is not Refusal.NO_DOMAIN:  # it went away since it was listed, to another host perhaps
                    raise
        return shown

    def _shown_now(self, place: Domain) -> VirtualMachine:
        return self._shown(place, state_of(place))

    def _shown(self, place: Domain, state: DomainState) -> VirtualMachine:
        machine = domain(place.xml())
        sizes = self._sizes.of(place, [disk.key for disk in machine.disks if disk.target and disk.chain])
        return VirtualMachine(
            id=machine.machine,
            name=machine.name,
            host=place.host.name,
            state=state.power,
            disks=tuple(shown_disk(disk, place.host.owned, sizes.get(disk.key, 0)) for disk in machine.disks),
            agent=machine.agent,
        )


def _nobody_reads(_machine: MachineId) -> AbstractContextManager[None]:
    return nullcontext()
