"""Restore one machine: the use case as its steps, over ports.

    check -> write the disks and compare each with its image -> define the machine, powered off

Nothing is written before every check passed: each disk's place was named, no machine of the inventory lives on it (but
the very machine that is restored, powered off, with ``overwrite`` said, and with no snapshot above it), and it carries no
signature of somebody else.
What happens to the disks themselves, several at once, is in ``restore_disks.py``.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

from proxy.backup import Step, at_once
from proxy.errors import LanfreeError, RestoreRefused, UnderOverlay
from proxy.interlock import Interlock
from proxy.model import (
    Disk,
    ImageInfo,
    MachineId,
    PowerState,
    RestorePoint,
    RestorePointId,
    RunId,
    VirtualMachine,
)
from proxy.ports import (
    DiskPlace,
    Hypervisor,
    ImageRepository,
    NewMachine,
    ProgressSink,
    RestoreTargets,
)
from proxy.restore_disk import DiskOptions, DiskPorts, RestoredDisk
from proxy.restore_disks import DISKS_AT_ONCE, restore_disks


@dataclass(frozen=True, slots=True)
class RestorePorts:
    """What a restore needs from the outside."""

    hypervisor: Hypervisor
    repository: ImageRepository
    targets: RestoreTargets
    interlock: Interlock
    progress: ProgressSink | None = None
    cancelled: Callable[[], bool] | None = None
    disks_at_once: int = DISKS_AT_ONCE


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """One restore. ``machine.disks`` names a place for each disk to restore; ``overwrite``: the places' content may go.

    ``define``: also define the machine (else only the disks are written). ``unidentified``: a person knows that machines
    whose disks cannot be told apart (multipath names) do not live on the places.

    ``differential``: read the places first and write only the chunks that differ; it needs ``overwrite``, since whatever
    is there goes. ``compare``: read every disk back from its device and compare it with the image; without, a device that
    keeps something else than what it was given is not found out. ``attach``: a machine that is given the one restored disk,
    where its site can do that (``attached`` of the result); nothing is defined then.
    """

    run: RunId
    point: RestorePointId
    machine: NewMachine
    overwrite: bool = False
    define: bool = True
    unidentified: bool = False
    differential: bool = False
    compare: bool = True
    attach: MachineId | None = None


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored; ``machine`` is ``None`` when only disks were asked for. ``attached``: the disk's key in the machine
    that it was given to."""

    point: RestorePoint
    disks: tuple[RestoredDisk, ...]
    machine: VirtualMachine | None
    attached: str = ""


def restore(ports: RestorePorts, request: RestoreRequest, step: Step = at_once) -> RestoreResult:
    """Restore a machine. Raises ``RestoreRefused`` before anything is written, ``IntegrityError`` for damaged chunks."""
    with ExitStack() as held:
        held.enter_context(ports.repository.reading(f"restore {request.run} of restore point {request.point}"))
        point = ports.repository.point(request.point)
        held.enter_context(ports.interlock.run(point.machine, request.run))
        # The checks are no recorded step: what they found must be true when the writing begins, not when it was asked.
        for device in check(ports, request, point):
            held.enter_context(ports.interlock.place(device, request.run))
        disks = step("disks", _disks, ports, request, point)
        machine = step("define", _define, ports, request, point) if request.define else None
        return RestoreResult(point, disks, machine)


def check(ports: RestorePorts, request: RestoreRequest, point: RestorePoint) -> list[str]:
    """Everything that can be known before the first write; writes nothing. Returns the devices' identities, sorted. Raises
    ``RestoreRefused``, and what the hypervisor raises."""
    if not request.machine.disks:
        raise RestoreRefused(
            point.machine_name, "no disk was given a place", hint="name one with --disk KEY=TARGET/LUN"
        )
    if request.differential and not request.overwrite:
        raise RestoreRefused(
            point.machine_name,
            "a differential restore changes what is there",
            hint="say --overwrite as well; whatever differs from the restore point goes",
        )
    _each_place_once(request.machine.disks)
    images = {key: _image(point, key) for key in request.machine.disks}
    _nobody_lives_there(ports, request, point)
    if request.define:
        ports.hypervisor.check_define(point.configuration, request.machine)
    devices = []
    for key, place in request.machine.disks.items():
        # Opening looks for signatures, size and write protection, and writes nothing.
        with ports.targets.open(place, images[key].size, overwrite=request.overwrite) as target:
            devices.append(target.identity)
    return sorted(devices)


def _nobody_lives_there(ports: RestorePorts, request: RestoreRequest, point: RestorePoint) -> None:
    """No machine has a disk on the places, but the very one that is restored, powered off, when overwriting was said."""
    machines = ports.hypervisor.machines()
    silent = sorted(set(ports.hypervisor.unreachable()) - request.machine.without_hosts)
    if silent:
        raise RestoreRefused(
            point.machine_name,
            f"host {', '.join(silent)} is silent, and a machine on the target may run there",
            hint="bring it back, or say --without-host NAME if you know it to be dead",
        )
    for machine in machines:
        original = machine.id == point.machine
        if original and request.machine.identity is None and request.define and machine.state is not PowerState.OFF:
            raise RestoreRefused(
                machine.name,
                f"it is {machine.state.value} on {machine.host}",
                hint="shut it down first, or restore beside it with --as NAME",
            )
        if original and request.overwrite and machine.state is PowerState.OFF:
            _nothing_above(machine, ports.targets, request)
        else:
            _no_disk_of(machine, ports.targets, request)


def _no_disk_of(machine: VirtualMachine, targets: RestoreTargets, request: RestoreRequest) -> None:
    for disk in machine.disks:
        places = [location for location in (disk.location, *disk.below) if location is not None]
        for place, location in product(request.machine.disks.values(), places):
            if targets.holds(place, location):
                raise RestoreRefused(
                    str(place),
                    f"it holds disk {disk.key} of machine {machine.name} ({machine.state.value} on {machine.host})",
                    hint="name an unused LUN; to go back in place, shut that machine down and say --overwrite",
                )
            if request.overwrite and not request.unidentified and targets.cannot_tell(place, location):
                raise _nobody_can_tell(machine, disk, place)


def _nothing_above(machine: VirtualMachine, targets: RestoreTargets, request: RestoreRequest) -> None:
    """The machine that is restored may lose its disks, but not what lies under its newest bytes: rubbish would be made of
    both, and whoever put an overlay or a snapshot there still needs it."""
    for disk, place in product(machine.disks, request.machine.disks.values()):
        if disk.overlay is not None and disk.location is not None and targets.holds(place, disk.location):
            raise UnderOverlay(str(place), disk.key, disk.overlay)
        for low in disk.below:
            if targets.holds(place, low):
                raise RestoreRefused(
                    str(place),
                    f"it lies below disk {disk.key} of {machine.name} itself: somebody's snapshot is above it",
                    hint="merge that snapshot first, or name an unused LUN",
                )
            if not request.unidentified and targets.cannot_tell(place, low):
                raise _nobody_can_tell(machine, disk, place)


def _nobody_can_tell(machine: VirtualMachine, disk: Disk, place: DiskPlace) -> RestoreRefused:
    return RestoreRefused(
        str(place),
        f"nobody can tell whether disk {disk.key} of machine {machine.name} lies on it",
        hint="use world-wide names in that machine's definition, or say --unidentified if you know",
    )


def _each_place_once(places: Mapping[str, DiskPlace]) -> None:
    seen: dict[DiskPlace, str] = {}
    for key, place in places.items():
        if place in seen:
            raise RestoreRefused(str(place), f"both {seen[place]} and {key} were to go there")
        seen[place] = key


def _disks(ports: RestorePorts, request: RestoreRequest, point: RestorePoint) -> tuple[RestoredDisk, ...]:
    """One step for all disks, because they go on at once. Done again, it writes everything again."""
    return restore_disks(
        DiskPorts(
            repository=ports.repository,
            targets=ports.targets,
            free=lambda: _nobody_lives_there(ports, request, point),
            progress=ports.progress,
            cancelled=ports.cancelled,
            at_once=ports.disks_at_once,
        ),
        DiskOptions(overwrite=request.overwrite, differential=request.differential, compare=request.compare),
        point,
        [(_image(point, key), place) for key, place in sorted(request.machine.disks.items())],
    )


def _define(ports: RestorePorts, request: RestoreRequest, point: RestorePoint) -> VirtualMachine:
    try:
        return ports.hypervisor.define(point.configuration, request.machine)
    except LanfreeError as error:
        equal = " and equal to the restore point" if request.compare else ""
        error.add_note(f"the disks are written{equal}; only the machine's definition is missing")
        raise


def _image(point: RestorePoint, key: str) -> ImageInfo:
    image = point.image(key)
    if image is None:
        known = ", ".join(i.key for i in point.images)
        raise RestoreRefused(key, f"restore point {point.id} of {point.machine_name} has no such disk, only {known}")
    return image
