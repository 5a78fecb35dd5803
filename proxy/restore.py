"""Restore one machine: the use case as its steps, over ports.

    check -> write each disk -> compare each disk with its image -> define the machine, powered off

Nothing is written before every check passed: each disk's place was named, no machine of the inventory lives on it (but
the very machine that is restored, powered off, with ``overwrite`` said), and it carries no signature of somebody else.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

from proxy.backup import Step, at_once
from proxy.errors import LanfreeError, RestoreRefused, WriteFailed
from proxy.extents import aligned
from proxy.interlock import Interlock
from proxy.model import (
    ImageInfo,
    PowerState,
    RestorePoint,
    RestorePointId,
    RunId,
    VirtualMachine,
)
from proxy.ports import (
    DiskPlace,
    Hypervisor,
    ImageReader,
    ImageRepository,
    NewMachine,
    ProgressSink,
    RestoreTargets,
)
from proxy.transfer import copy


@dataclass(frozen=True, slots=True)
class RestorePorts:
    """What a restore needs from the outside."""

    hypervisor: Hypervisor
    repository: ImageRepository
    targets: RestoreTargets
    interlock: Interlock
    progress: ProgressSink | None = None
    cancelled: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """One restore. ``machine.disks`` names a place for each disk to restore; ``overwrite``: the places' content may go.

    ``define``: also define the machine (else only the disks are written). ``unidentified``: a person knows that machines
    whose disks cannot be told apart (multipath names) do not live on the places.
    """

    run: RunId
    point: RestorePointId
    machine: NewMachine
    overwrite: bool = False
    define: bool = True
    unidentified: bool = False


@dataclass(frozen=True, slots=True)
class RestoredDisk:
    """One disk that was written and read back. ``digest``: of the image, equal to that of the device."""

    key: str
    device: str
    size: int
    bytes_written: int
    digest: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored; ``machine`` is ``None`` when only disks were asked for."""

    point: RestorePoint
    disks: tuple[RestoredDisk, ...]
    machine: VirtualMachine | None


def restore(ports: RestorePorts, request: RestoreRequest, step: Step = at_once) -> RestoreResult:
    """Restore a machine. Raises ``RestoreRefused`` before anything is written, ``IntegrityError`` for damaged chunks."""
    point = ports.repository.point(request.point)
    with ExitStack() as held:
        held.enter_context(ports.interlock.run(point.machine, request.run))
        # The checks are no recorded step: what they found must be true when the writing begins, not when it was asked.
        for device in _check(ports, request, point):
            held.enter_context(ports.interlock.place(device, request.run))
        disks = []
        for key, place in sorted(request.machine.disks.items()):
            image = _image(point, key)
            disks.append(step(f"write {key}", _write_disk, ports, request, point, image, place))
            step(f"compare {key}", _compare_disk, ports, point, image, place)
        machine = step("define", _define, ports, request, point) if request.define else None
        return RestoreResult(point, tuple(disks), machine)


def _check(ports: RestorePorts, request: RestoreRequest, point: RestorePoint) -> list[str]:
    """Everything that can be known before the first write; returns the devices' identities, sorted."""
    if not request.machine.disks:
        raise RestoreRefused(
            point.machine_name, "no disk was given a place", hint="name one with --disk KEY=TARGET/LUN"
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
        if not (original and request.overwrite and machine.state is PowerState.OFF):
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
                raise RestoreRefused(
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


def _write_disk(
    ports: RestorePorts, request: RestoreRequest, point: RestorePoint, image: ImageInfo, place: DiskPlace
) -> RestoredDisk:
    # Asked again for every disk: the one before it may have taken hours.
    _nobody_lives_there(ports, request, point)
    with (
        ports.repository.open_image(point, image.key) as reader,
        ports.targets.open(place, image.size, overwrite=request.overwrite) as target,
    ):
        copied = copy(
            reader,
            target,
            reader.extents(),
            disk=image.key,
            granularity=reader.granularity,
            progress=ports.progress,
            cancelled=ports.cancelled,
        )
        target.flush()
        return RestoredDisk(
            key=image.key,
            device=target.identity,
            size=image.size,
            bytes_written=copied.bytes_read,
            digest=image.digest,
            seconds=copied.seconds,
        )


def _compare_disk(ports: RestorePorts, point: RestorePoint, image: ImageInfo, place: DiskPlace) -> None:
    with (
        ports.repository.open_image(point, image.key) as reader,
        ports.targets.read_back(place, image.size) as device,
    ):
        extents = aligned(device.extents(), reader.granularity, image.size)
        copy(
            device,
            _Comparison(reader, device.identity),
            extents,
            disk=f"{image.key} (read back)",
            granularity=reader.granularity,
            progress=ports.progress,
            cancelled=ports.cancelled,
        )


class _Comparison:
    """A sink that keeps nothing: it compares what it is given with an image's chunk ids."""

    def __init__(self, image: ImageReader, device: str) -> None:
        self._image = image
        self._device = device

    def write(self, offset: int, data: memoryview) -> None:
        step = self._image.granularity
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            expected = self._image.digest_at(offset + start)
            if not (self._image.chunk_digest(piece) == expected if expected is not None else not any(piece)):
                raise self._differs(offset + start, len(piece))

    def zero(self, offset: int, length: int) -> None:
        for position in range(offset, offset + length, self._image.granularity):
            if self._image.digest_at(position) is not None:
                raise self._differs(position, self._image.granularity)

    def _differs(self, offset: int, length: int) -> WriteFailed:
        return WriteFailed(self._device, offset, length, "it does not read back as the restore point has it")


def _define(ports: RestorePorts, request: RestoreRequest, point: RestorePoint) -> VirtualMachine:
    try:
        return ports.hypervisor.define(point.configuration, request.machine)
    except LanfreeError as error:
        error.add_note("the disks are written and equal to the restore point; only the machine's definition is missing")
        raise


def _image(point: RestorePoint, key: str) -> ImageInfo:
    image = point.image(key)
    if image is None:
        known = ", ".join(i.key for i in point.images)
        raise RestoreRefused(key, f"restore point {point.id} of {point.machine_name} has no such disk, only {known}")
    return image
