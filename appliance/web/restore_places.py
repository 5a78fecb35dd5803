"""Where a restore can go: hosts, LUNs of targets that restores may write to, datastores, shared directories, and what lives
there. Looked at when it is asked, and kept for a minute: arrays log each login."""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from api.auth.roles import Caller
from api.schemas import restores as schemas
from api.schemas.common import MachineRef
from api.schemas.restores import RestoreTargets, TargetDatastore, TargetDirectory, TargetHost, TargetLun
from appliance.config import Target
from appliance.reach import why_not_there
from appliance.web.reaching import silences
from appliance.wiring import Services, san_target
from proxy.errors import LanfreeError
from proxy.model import Location, LunAddress, VirtualMachine, VmdkAddress

if TYPE_CHECKING:
    from proxy.hypervisor.vsphere.targets import Targets

_KEPT_SECONDS = 60.0

_SIZES_SECONDS = 3.0
"""For the sizes of one target's units: hundreds of them, where it answers at all."""


HIDDEN = MachineRef(id="", name="a machine out of your reach")
"""In place of one that the caller does not see: that there is one has to be told."""


def occupant(machine: VirtualMachine, disk: str, caller: Caller, *, same: bool = False) -> schemas.Occupant:
    """A machine on a place. ``same``: the one that is restored."""
    seen = caller.sees(machine.id, machine.name)
    return schemas.Occupant(
        machine=MachineRef(id=machine.id, name=machine.name) if seen else HIDDEN,
        disk=disk,
        state=machine.state,
        host=machine.host if seen else "",
        same=same,
    )


@dataclass(frozen=True, slots=True)
class _Unit:
    """``known_as``: targets under which it is found; ``hosts_name``: those of them that hosts log in to; ``size``: bytes, where
    it was told in time."""

    known_as: tuple[str, ...]
    hosts_name: tuple[str, ...]
    number: int
    names: tuple[str, ...]
    size: int | None


@dataclass(slots=True)
class _Seen:
    """Whatever there is, for everybody; what a caller sees of it is decided later."""

    at: float
    machines: Sequence[VirtualMachine] = ()
    silent: dict[str, str] = field(default_factory=dict)
    luns: list[_Unit] = field(default_factory=list)
    sites: "Mapping[str, Targets]" = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Places:
    """Of one process. Calls may come from any thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._seen: _Seen | None = None

    def look(self, caller: Caller) -> RestoreTargets:
        """As a caller may see it."""
        with self._lock:
            if self._seen is None or time.monotonic() - self._seen.at > _KEPT_SECONDS:
                self._seen = self._looked()
            seen = self._seen
        return RestoreTargets(
            hosts=tuple(self._hosts(seen)),
            luns=tuple(_luns(seen, caller)),
            datastores=tuple(_datastores(seen)),
            directories=tuple(self._directories()),
            networks=tuple(sorted({network for site in seen.sites.values() for network in site.networks})),
            problems=(
                *seen.problems,
                *(f"{each.where} does not answer: {each.why}" for each in silences(caller, seen.silent)),
            ),
        )

    def _looked(self) -> _Seen:
        services, seen = self._services, _Seen(time.monotonic())
        try:
            seen.machines = services.hypervisor.machines()
            seen.silent = dict(services.hypervisor.unreachable())
        except LanfreeError as error:
            seen.problems.append(error.message)
        if services.vcenters is not None:
            seen.sites, silent = services.vcenters.places()
            seen.silent |= silent
        for target in services.settings.san.target:
            if target.access == "restore":
                seen.luns += self._units(target, seen)
        return seen

    def _units(self, section: Target, seen: _Seen) -> Iterator[_Unit]:
        from proxy.transport.san_sizes import unit_sizes  # noqa: PLC0415  # brings libiscsi

        target = san_target(section)
        try:
            units = self._services.fabric.units(target)
        except LanfreeError as error:
            seen.problems.append(f"{section.iqn}: {error.message}")
            return
        sizes: dict[int, int] = {}
        with suppress(LanfreeError):  # the preview looks at the one that is chosen
            sizes = unit_sizes(target, sorted(units), seconds=_SIZES_SECONDS)
        for number, identity in sorted(units.items()):
            names = (*identity.names, *identity.local)
            # A target of the proxy's own refuses the hosts' names and secrets: a machine defined over it would not start.
            hosts_name = section.presents or (section.iqn,)
            yield _Unit((section.iqn, *section.presents), hosts_name, number, names, sizes.get(number))

    def _hosts(self, seen: _Seen) -> Iterator[TargetHost]:
        settings = self._services.settings
        for host in settings.host:
            yield TargetHost(name=host.name, hypervisor=host.name, kind="kvm", silent=seen.silent.get(host.name, ""))
        for site, places in seen.sites.items():
            for name, why in places.hosts.items():
                yield TargetHost(name=name, hypervisor=site, kind="vsphere", silent=why)
        known = {host.name for host in settings.host}.union(*(places.hosts for places in seen.sites.values()))
        there: dict[str, str] = {}
        for machine in seen.machines:
            sites = [d.location.site for d in machine.disks if isinstance(d.location, VmdkAddress)]
            if machine.host not in known and (sites or machine.host):
                there.setdefault(machine.host, sites[0] if sites else "")
        for name, site in sorted(there.items()):
            yield TargetHost(name=name, hypervisor=site or name, kind="vsphere" if site else "kvm")

    def _directories(self) -> Iterator[TargetDirectory]:
        for directory in self._services.settings.raw.shared_directories:
            free = None
            with suppress(OSError):
                status = os.statvfs(directory)
                free = status.f_bavail * status.f_frsize
            yield TargetDirectory(path=str(directory), free=free, error=why_not_there(directory))


def _luns(seen: _Seen, caller: Caller) -> Iterator[TargetLun]:
    for unit in seen.luns:
        found = [
            occupant(machine, disk.key, caller)
            for machine in seen.machines
            for disk in machine.disks
            if any(_lies_on(place, unit) for place in (disk.location, *disk.below))
        ]
        name = unit.names[0] if unit.names else ""
        for target in unit.hosts_name:
            yield TargetLun(target=target, lun=unit.number, name=name, size=unit.size, occupants=tuple(found))


def _lies_on(place: Location | None, unit: _Unit) -> bool:
    """As far as names tell; the preview looks more closely."""
    if isinstance(place, LunAddress) and place.target in unit.known_as and place.lun == unit.number:
        return True
    if isinstance(place, VmdkAddress):
        return any(device in unit.names for device in place.devices)
    name = getattr(place, "name", None)
    return name is not None and name in unit.names


def _datastores(seen: _Seen) -> Iterator[TargetDatastore]:
    for site, places in seen.sites.items():
        for store in places.datastores:
            if store.accessible:
                yield TargetDatastore(
                    name=store.name,
                    hypervisor=site,
                    capacity=store.capacity,
                    free=store.free,
                    hosts=places.mounted.get(store.id, ()),
                )
    hosts: dict[tuple[str, str], set[str]] = {}
    for machine in seen.machines:
        for disk in machine.disks:
            if isinstance(disk.location, VmdkAddress) and disk.location.site not in seen.sites:
                key = (disk.location.site, disk.location.datastore)
                hosts.setdefault(key, set()).add(machine.host)
    for (site, name), there in sorted(hosts.items()):
        yield TargetDatastore(name=name, hypervisor=site, hosts=tuple(sorted(there)))
