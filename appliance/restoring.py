"""What a restore of a whole machine would do, found out without writing anything: shown to a person before, and compared once
more before it begins, so that what was shown is what is done.

::

    plan ── outlook ── (person) ── order, with the outlook's digest ── task ── outlook again: the same digest? ── restore
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from appliance import operations
from appliance.keeping.maintenance import standings
from appliance.wiring import Services
from catalog.jobs.values import TaskKind
from proxy.errors import LanfreeError, RestoreRefused
from proxy.extents import Kind
from proxy.model import ImageInfo, MachineId, PowerState, RestorePoint, VirtualMachine
from proxy.ports import DiskPlace, NewMachine
from proxy.repository.records import Health
from proxy.restore import RestorePorts, RestoreRequest, check

Effect = Literal["new", "replaced", "recreated", "disks-only", "attached"]
"""What becomes of the machine: one beside the original, its own definition in place of what there is, or made again where there
is none; none at all; or another machine gets the disk."""


@dataclass(frozen=True, slots=True)
class Occupant:
    """A disk of a machine that lies on a place now. ``same``: of the very machine that is restored."""

    machine: VirtualMachine
    disk: str
    same: bool


@dataclass(frozen=True, slots=True)
class DiskOutlook:
    """``data``: bytes that are not zero, ``None`` if the image cannot be opened. ``device``: what the place is, ``capacity``
    of it; empty where it could not be looked at. ``content``: what it carries now, for people."""

    image: ImageInfo
    place: DiskPlace
    data: int | None = None
    device: str = ""
    content: str = ""
    occupants: tuple[Occupant, ...] = ()

    @property
    def effect(self) -> Literal["create", "overwrite", "unknown"]:
        """Whether anything that is there goes."""
        if self.content or self.occupants:
            return "overwrite"
        return "create" if self.device or self.place.datastore else "unknown"


@dataclass(frozen=True, slots=True)
class Outlook:
    """All of it. ``original``: the machine as it is now, if it still is. ``refusals``: what stands against it."""

    point: RestorePoint
    request: RestoreRequest
    effect: Effect
    disks: tuple[DiskOutlook, ...]
    original: VirtualMachine | None = None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusals: tuple[LanfreeError, ...] = ()
    seconds: float | None = None

    @property
    def digest(self) -> str:
        """Of everything that a person decides by. Not of what changes by the minute, nor of the run and a new identity."""
        new = self.request.machine
        facts = {
            "point": self.point.id,
            "effect": self.effect,
            "machine": [new.name, new.host, new.connected, new.folder, new.pool, sorted(new.networks.items())],
            "without": sorted(new.without_hosts),
            "attach": self.request.attach,
            "how": [getattr(self.request, name) for name in ("overwrite", "differential", "compare", "unidentified")],
            "original": _facts(self.original) if self.effect == "replaced" else None,
            "left_out": sorted(self.left_out),
            "disks": [
                [
                    one.image.key,
                    one.image.size,
                    str(one.place),
                    one.device,
                    one.content,
                    sorted([*_facts(each.machine), each.disk] for each in one.occupants),
                ]
                for one in self.disks
            ],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _facts(machine: VirtualMachine | None) -> list[str]:
    return [] if machine is None else [machine.id, machine.name, machine.host, machine.state.value]


def outlook(services: Services, request: RestoreRequest) -> Outlook:
    """Look at everything that the restore would touch. Refusals are told and not raised. Raises ``RestorePointNotFound``,
    ``RepositoryUnavailable``."""
    point = services.repository.point(request.point)
    refusals: list[LanfreeError] = []
    machines: Sequence[VirtualMachine] = ()
    disks: list[DiskOutlook] = []
    left_out: list[str] = []
    try:
        if services.vcenters is not None:
            left_out += services.vcenters.left_out(request, point)
        with services.restoring(request, point) as ports:
            with _told(refusals):
                machines = ports.hypervisor.machines()
            disks += _Looking(ports, request, point, machines, refusals).disks()
            with _told(refusals):
                check(ports, request, point)
    except LanfreeError as error:
        refusals.append(error)
    original = next((machine for machine in machines if machine.id == point.machine), None)
    named = [image.key for image in point.images if image.key not in request.machine.disks]
    return Outlook(
        point=point,
        request=request,
        effect=_effect(request, original),
        disks=tuple(disks),
        original=original,
        left_out=(*(f"disk {key}: no place was named for it" for key in named), *left_out),
        warnings=tuple(_warnings(services, request, point)),
        refusals=tuple({error.message: error for error in refusals}.values()),
        seconds=_seconds(services, point.machine),
    )


def make_sure(services: Services, request: RestoreRequest, confirmed: str) -> None:
    """Raises ``RestoreRefused`` when it is not any more what a person was shown."""
    now = outlook(services, request)
    if now.refusals:
        raise now.refusals[0]
    if now.digest != confirmed:
        raise changed(now.point)


def changed(point: RestorePoint) -> RestoreRefused:
    """What was shown is not true any more."""
    return RestoreRefused(
        point.machine_name,
        "something changed since it was shown what this restore would do",
        hint="look at the preview again, and confirm that",
    )


class _told:  # noqa: N801  # reads as a word of the sentence, like contextlib.suppress
    """Within it a refusal is kept, and what follows goes on."""

    def __init__(self, refusals: list[LanfreeError]) -> None:
        self._refusals = refusals

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, LanfreeError):
            self._refusals.append(error)
            return True
        return False


def _effect(request: RestoreRequest, original: VirtualMachine | None) -> Effect:
    if request.attach is not None:
        return "attached"
    if not request.define:
        return "disks-only"
    if request.machine.identity is not None:
        return "new"
    return "recreated" if original is None else "replaced"


@dataclass(frozen=True, slots=True)
class _Looking:
    """At the disks of one restore. ``machines``: all that there are."""

    ports: RestorePorts
    request: RestoreRequest
    point: RestorePoint
    machines: Sequence[VirtualMachine]
    refusals: list[LanfreeError]

    def disks(self) -> Iterator[DiskOutlook]:
        """One by one; of what cannot be looked at there is less."""
        for key, place in sorted(self.request.machine.disks.items()):
            image = self.point.image(key)
            if image is not None:
                yield self._disk(DiskOutlook(image, place))

    def _disk(self, one: DiskOutlook) -> DiskOutlook:
        with _told(self.refusals), self.ports.repository.open_image(self.point, one.image.key) as reader:
            one = replace(one, data=sum(part.length for part in reader.map() if part.kind is Kind.DATA))
        if one.place.datastore and not one.place.path:
            return one  # made with the machine: nothing is there
        with _told(self.refusals):
            one = self._looked_at(one)
        with _told(self.refusals):
            return replace(one, occupants=tuple(self._occupants(one.place)))
        return one

    def _looked_at(self, one: DiskOutlook) -> DiskOutlook:
        """Opening looks for signatures, size and write protection, and writes nothing."""
        targets, size = self.ports.targets, one.image.size
        try:
            with targets.open(one.place, size, overwrite=False) as target:
                return replace(one, device=target.identity)
        except RestoreRefused as refused:
            if not self.request.overwrite:
                raise
            content = refused.message
        with targets.open(one.place, size, overwrite=True) as target:
            return replace(one, device=target.identity, content=content)

    def _occupants(self, place: DiskPlace) -> Iterator[Occupant]:
        for machine in self.machines:
            for disk in machine.disks:
                locations = [location for location in (disk.location, *disk.below) if location is not None]
                if any(self.ports.targets.holds(place, location) for location in locations):
                    yield Occupant(machine, disk.key, machine.id == self.point.machine)


def _warnings(services: Services, request: RestoreRequest, point: RestorePoint) -> Iterator[str]:
    with suppress(LanfreeError):
        standing = standings(services, [point])[point.id]
        if standing.health is Health.DAMAGED:
            yield f"this restore point is damaged, as its verification of {standing.verified_at:%Y-%m-%d} found"
    with services.jobs.transaction(write=False) as unit:
        at_work = [task for task in unit.tasks.running() if task.machine == point.machine]
    if at_work:
        yield f"a {at_work[0].kind.value} of {point.machine_name} goes on; the restore waits for its end"
    if request.unidentified:
        yield "disks that cannot be told apart are taken for others' than the machines' that may live there"
    if not request.compare:
        yield "nothing is read back: a device that keeps something else than what it was given is not found out"
    if request.define and request.machine.connected:
        yield "its network links are up: beside the original it would answer for the same addresses"


def _seconds(services: Services, machine: MachineId) -> float | None:
    """By what restores of this machine took, else by what it took to read all of it."""
    with services.jobs.transaction(write=False) as unit:
        durations: Mapping[tuple[MachineId, TaskKind, bool], Sequence[float]] = unit.tasks.durations()
    for key in ((machine, TaskKind.RESTORE, False), (machine, TaskKind.BACKUP, True)):
        if durations.get(key):
            return round(median(durations[key]), 1)
    return None


def machine_to_make(
    services: Services, point: RestorePoint, name: str | None, disks: Mapping[str, DiskPlace], host: str = ""
) -> NewMachine:
    """The machine itself, or with a ``name`` one beside it, under a new identity. Portals of LUNs are found out. Raises
    ``ConfigurationError`` for a target that nothing is known of."""

    def place(given: DiskPlace) -> DiskPlace:
        return replace(given, portal=operations.portal_of(services, given.target)) if given.target else given

    return NewMachine(
        name=name or point.machine_name,
        host=host or point.host,
        disks={key: place(given) for key, given in disks.items()},
        identity=operations.new_identity() if name else None,
    )


def state_of(original: VirtualMachine | None) -> PowerState | None:
    """For people."""
    return None if original is None else original.state
