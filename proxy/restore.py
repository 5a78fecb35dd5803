"""Restore one machine: the use case as its steps, over ports.

    check -> write each disk -> compare each disk with its image -> define the machine, powered off

Nothing is written before every check passed: each disk's place was named, no machine of the inventory lives on it (but
the very machine that is restored, powered off, with ``overwrite`` said), and it carries no signature of somebody else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.backup import Step, at_once
from proxy.errors import IntegrityError, RestoreRefused
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

    ``define``: also define the machine (else only the disks are written).
    """

    run: RunId
    point: RestorePointId
    machine: NewMachine
    overwrite: bool = False
    define: bool = True


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
    with ports.interlock.run(point.machine, request.run):
        step("check", _check, ports, request, point)
        disks = []
        for key, place in sorted(request.machine.disks.items()):
            image = _image(point, key)
            disks.append(step(f"write {key}", _write_disk, ports, request, point, image, place))
            step(f"compare {key}", _compare_disk, ports, point, image, place)
        machine = step("define", _define, ports, request, point) if request.define else None
        return RestoreResult(point, tuple(disks), machine)


def _check(ports: RestorePorts, request: RestoreRequest, point: RestorePoint) -> None:
    for key in request.machine.disks:
        _image(point, key)
    if not request.machine.disks:
        raise RestoreRefused(
            point.machine_name, "no disk was given a place", hint="name one with --disk KEY=TARGET/LUN"
        )
    _each_place_once(request.machine.disks)
    keeps_identity = request.machine.identity is None
    for machine in ports.hypervisor.machines():
        original = machine.id == point.machine
        if original and keeps_identity and request.define and machine.state is not PowerState.OFF:
            raise RestoreRefused(
                machine.name,
                f"it is {machine.state.value} on {machine.host}",
                hint="shut it down first, or restore beside it with --as NAME",
            )
        if not (original and request.overwrite and machine.state is PowerState.OFF):
            _no_disk_of(machine, ports.targets, request.machine.disks)
    # Opening is a check too: it looks for signatures, size and write protection on every disk before the first write.
    for key, place in request.machine.disks.items():
        ports.targets.open(place, _image(point, key).size, overwrite=request.overwrite).close()


def _no_disk_of(machine: VirtualMachine, targets: RestoreTargets, places: Mapping[str, DiskPlace]) -> None:
    for disk in machine.disks:
        for place in places.values():
            if disk.location is not None and targets.holds(place, disk.location):
                raise RestoreRefused(
                    _named(place),
                    f"it holds disk {disk.key} of machine {machine.name} ({machine.state.value} on {machine.host})",
                    hint="name an unused LUN; to go back in place, shut that machine down and say --overwrite",
                )


def _each_place_once(places: Mapping[str, DiskPlace]) -> None:
    seen: dict[DiskPlace, str] = {}
    for key, place in places.items():
        if place in seen:
            raise RestoreRefused(_named(place), f"both {seen[place]} and {key} were to go there")
        seen[place] = key


def _write_disk(
    ports: RestorePorts, request: RestoreRequest, point: RestorePoint, image: ImageInfo, place: DiskPlace
) -> RestoredDisk:
    with (
        ports.repository.open_image(point, image.key) as reader,
        ports.targets.open(place, image.size, overwrite=request.overwrite) as target,
    ):
        copied = copy(
            reader, target, reader.extents(), disk=image.key, progress=ports.progress, cancelled=ports.cancelled
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
        copy(device, _Comparison(reader, device.identity), extents, disk=image.key)


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
                raise IntegrityError(
                    f"{self._device} at {offset + start}", "what was written does not read back as the restore point"
                )

    def zero(self, offset: int, length: int) -> None:
        for position in range(offset, offset + length, self._image.granularity):
            if self._image.digest_at(position) is not None:
                raise IntegrityError(f"{self._device} at {position}", "reads as zero where the restore point has data")


def _define(ports: RestorePorts, request: RestoreRequest, point: RestorePoint) -> VirtualMachine:
    return ports.hypervisor.define(point.configuration, request.machine)


def _image(point: RestorePoint, key: str) -> ImageInfo:
    image = point.image(key)
    if image is None:
        known = ", ".join(i.key for i in point.images)
        raise RestoreRefused(key, f"restore point {point.id} of {point.machine_name} has no such disk, only {known}")
    return image


def _named(place: DiskPlace) -> str:
    return place.path or f"{place.target}/{place.lun}"
