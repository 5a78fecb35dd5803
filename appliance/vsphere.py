"""The configured vCenters and how their disks are reached: part of the composition root, loaded only where one is configured
(pyVmomi takes a second)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from appliance.config import Vcenter
from proxy.closing import Closeable
from proxy.errors import ConfigurationError, LanfreeError, RestoreRefused
from proxy.hypervisor.vsphere import VsphereSettings, VsphereSite, inventory, selection
from proxy.hypervisor.vsphere.attach import attach, carrier, check_attach
from proxy.hypervisor.vsphere.configuration import KIND
from proxy.hypervisor.vsphere.nfc_http import sha1_thumbprint
from proxy.hypervisor.vsphere.release import ReadersGone
from proxy.hypervisor.vsphere.targets import Targets, read_targets
from proxy.machine_rules import Candidate, Rule
from proxy.model import Location, MachineId, RestorePoint, VirtualMachine, VmdkAddress
from proxy.ports import DiskPlace, RestoreTargets, StateStore, Transport
from proxy.restore import RestoreRequest
from proxy.transport.nfc import HostBudget, NfcTransport
from proxy.transport.nfc_target import ImportTargets
from proxy.transport.raw import SharedFiles
from proxy.transport.san import SanFabric
from proxy.transport.vddk import VddkSettings, VddkTransport
from proxy.transport.vmfs_san import Qualification, VmfsTransport
from proxy.units import GiB

REACH = 32 * GiB
"""Samples that qualify a datastore lie in so much of a disk's beginning: an export is a stream, read from its start."""


def _into_datastore(key: str, place: DiskPlace) -> None:
    if not place.datastore or place.path:
        raise _not_there(key)


def _not_there(key: str) -> RestoreRefused:
    hint = "name one: KEY='[DATASTORE]'"
    return RestoreRefused(key, "a disk that is given to a machine is made in a datastore", hint=hint)


def _only_disk(request: RestoreRequest) -> tuple[str, DiskPlace]:
    if len(request.machine.disks) != 1:
        raise RestoreRefused(
            request.machine.name, "one disk at a time is given to a machine", hint="name one with --disk"
        )
    return next(iter(request.machine.disks.items()))


def vddk_settings(section: Vcenter, site: VsphereSite) -> VddkSettings:
    """Raises ``ConfigurationError`` where no library is configured."""
    if section.vddk_library is None:
        raise ConfigurationError(f"[[vcenter]] {section.name}", "names no vddk_library")
    return VddkSettings(
        library=section.vddk_library,
        server=section.host,
        user=section.user,
        password_file=section.password_file,
        thumbprint=partial(sha1_thumbprint, site.vcenter),
        port=section.port,
    )


class Vcenters(Closeable):
    """All vCenters of one appliance, each with its transports. ``state``: the drivers' own; ``directory``: this proxy's."""

    def __init__(
        self,
        sections: Sequence[Vcenter],
        *,
        state: StateStore,
        directory: Path,
        fabric: SanFabric,
        files: SharedFiles,
        readers_gone: ReadersGone,
    ) -> None:
        self.sites = {
            section.name: VsphereSite(
                VsphereSettings(**section.model_dump(exclude={"vddk_library"})),
                state=state,
                readers_gone=readers_gone,
            )
            for section in sections
        }
        self._budget = HostBudget()
        self._lan: dict[str, Transport] = {section.name: self._over_lan(section) for section in sections}
        self._san = {
            name: VmfsTransport(
                fabric,
                site,
                Qualification(directory / "qualified", self._lan[name].open, reach=REACH),
                files=files,
            )
            for name, site in self.sites.items()
        }

    def _over_lan(self, section: Vcenter) -> Transport:
        site = self.sites[section.name]
        if section.vddk_library is None:
            return NfcTransport(site.export, self._budget)
        return VddkTransport(vddk_settings(section, site), self._budget)

    def san(self, place: Location) -> Transport | None:
        """The SAN transport for a disk of one of these; ``None`` for any other disk."""
        return self._san.get(place.site) if isinstance(place, VmdkAddress) else None

    def lan(self, place: Location) -> Transport | None:
        """As ``san``, through the hosts."""
        return self._lan.get(place.site) if isinstance(place, VmdkAddress) else None

    def of(self, point: RestorePoint) -> VsphereSite:
        """Where a restore of it goes: the vCenter that it came from, else the only one. Raises ``ConfigurationError``."""
        if point.hypervisor in self.sites:
            return self.sites[point.hypervisor]
        if len(self.sites) == 1:
            return next(iter(self.sites.values()))
        raise ConfigurationError(
            point.id,
            f"it comes from {point.hypervisor or 'nowhere known'}, and none of the vCenters {', '.join(self.sites)} is that",
            hint="name the vCenter that is to take it as the old one was named, in [[vcenter]]",
        )

    def targets(self, request: RestoreRequest, point: RestorePoint) -> ImportTargets | None:
        """For disks that a vCenter makes in a datastore; ``None`` if none is asked for. Raises ``RestoreRefused`` for one that
        is to be given to a machine and goes elsewhere."""
        if request.attach is not None:
            _into_datastore(*_only_disk(request))
        if not any(place.datastore and not place.path for place in request.machine.disks.values()):
            return None
        site = self.of(point)
        configuration, new = point.configuration, request.machine
        if request.attach is not None:
            key, place = _only_disk(request)
            check_attach(site.vcenter, request.attach)
            into = site.machine(request.attach)
            configuration, new = carrier(configuration, key, into=into, datastore=place.datastore, run=request.run)
        begin = site.imports.beginner(request.run, configuration, new)
        return ImportTargets(begin, site.export, new.name, self._budget)

    def left_out(self, request: RestoreRequest, point: RestorePoint) -> Sequence[str]:
        """What the restored machine will not have of the saved one, for people; nothing for one that vSphere did not save."""
        if point.configuration.kind != KIND or not request.define:
            return ()
        return self.of(point).imports.left_out(point.configuration, request.machine)

    def attach(self, request: RestoreRequest, point: RestorePoint, targets: RestoreTargets) -> str:
        """Give the disk that was imported by ``targets`` to the machine that the request names; its key there."""
        key, _ = _only_disk(request)
        if request.attach is None or not isinstance(targets, ImportTargets):
            raise _not_there(key)
        return attach(self.of(point).vcenter, targets.made[key], request.attach)

    def select(self, include: Sequence[str], exclude: Sequence[str]) -> tuple[list[VirtualMachine], list[str]]:
        """Machines that the rules (``selection.Rule``) choose now, of all vCenters, and the rules that fit none of them. Raises
        ``ConfigurationError`` for a rule that is none."""
        chosen: list[VirtualMachine] = []
        rules, exceptions = [Rule.parse(text) for text in include], [Rule.parse(text) for text in exclude]
        idle = {str(rule) for rule in (*rules, *exceptions)}
        for site in self.sites.values():
            found = selection.select(inventory.read(site.vcenter), rules, exceptions)
            chosen += [each.machine.machine for each in found.machines]
            idle &= {str(rule) for rule in found.idle}
        return chosen, sorted(idle)

    def candidates(self) -> tuple[dict[MachineId, Candidate], dict[str, str], dict[str, str]]:
        """What the vCenters know of all their machines' places; names of vCenters that do not answer -> why; and of those whose
        tags could not be read -> why."""
        found: dict[MachineId, Candidate] = {}
        silent: dict[str, str] = {}
        without_tags: dict[str, str] = {}
        for name, site in self.sites.items():
            try:
                seen = inventory.read(site.vcenter)
            except LanfreeError as error:
                silent[name] = error.message
                continue
            if seen.without_tags:
                without_tags[name] = seen.without_tags
            for machine in seen.machines:
                found.setdefault(machine.machine.id, selection.candidate(machine, name))
        return found, silent, without_tags

    def places(self) -> tuple[dict[str, Targets], dict[str, str]]:
        """Where restores can go, by vCenter; names of vCenters that do not answer -> why."""
        found: dict[str, Targets] = {}
        silent: dict[str, str] = {}
        for name, site in self.sites.items():
            try:
                found[name] = read_targets(site.vcenter)
            except LanfreeError as error:
                silent[name] = error.message
        return found, silent

    def close(self) -> None:
        """Log out everywhere."""
        for site in self.sites.values():
            site.close()
