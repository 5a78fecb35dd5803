"""From containers to a disk: whatever a chain of images lies on, this makes one ``BlockSource`` of it.

A *container* is a ``BlockSource`` over the uninterpreted bytes of a LUN, a file or a device. A transport knows how to
open containers; what the bytes in them mean (raw, qcow2, a chain of both) is the same for all transports::

    layer 0   |##|  |##|     |     top: what it holds hides the layers under it
    layer 1   |  |##|##|##|  |     asked for what layer 0 does not hold, and so on
    disk      |00|11|00|11|zz|     what no layer holds reads as zero

The words of a refusal, besides those of ``proxy.transport.qcow2``: ``no-layers``, ``raw-above-layers`` (a raw image hides
all under it), ``container-too-small``, ``size-mismatch`` (the container holds another disk, or one of another time),
``backing-missing`` (the image needs a layer that was not given).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from proxy.errors import ChangesUnknown, TransportRefused
from proxy.extents import Extent, Kind, intersect, normal, subtract
from proxy.model import ChangeId, Format, FrozenDisk, Layer, ReasonCode, Tracking
from proxy.ports import BlockSource
from proxy.transport.guard import check_read, fill_zero
from proxy.transport.qcow2 import Qcow2Image
from proxy.transport.stack import ImageStack, StackedImage
from proxy.units import align_up

OpenContainer = Callable[[Layer], BlockSource]
"""Opens the container of one layer, at least as long as what lies in it. Raises ``TransportRefused``, ``ReadFailed``.
It may be called for all layers before the first read, and the source that ``open_layers`` returns owns the result."""

SECTOR = 512
"""Containers are cut to whole sectors: QEMU rounds the size of a raw file up to them."""


def open_layers(disk: FrozenDisk, open_container: OpenContainer, mode: str) -> BlockSource:
    """The frozen disk, ``disk.size`` bytes (0: as large as its top layer says), as its layers (top first) show it.

    ``mode`` names the transport in refusals. Closing the source closes every container, and so does an error in here.
    Raises ``TransportRefused`` for what cannot be read through this library, and whatever ``open_container`` raises.
    """
    if not disk.layers:
        raise TransportRefused(mode, disk.key, "no-layers")
    with ExitStack() as opened:
        images: list[StackedImage] = []
        for layer in disk.layers:
            container = open_container(layer)
            opened.callback(container.close)
            images.append(_image(container, layer, disk, mode))
        if not disk.size:  # a host does not tell the size of a LUN that no machine has open
            disk = replace(disk, size=images[0].size)
        _check_chain(images, disk, mode)
        opened.pop_all()
    return _LayeredSource(disk, images)


class _RawImage:
    """A container whose bytes are the guest's: it holds all of them up to its size, which is at most ``size``."""

    def __init__(self, container: BlockSource, size: int) -> None:
        self._container = container
        self.size = min(size, container.size)
        self.identity = container.identity

    def allocation(self) -> Sequence[Extent]:
        if not self.size:
            return []
        whole = [Extent(0, self.size)]
        return intersect(self._container.extents(), whole) if self._container.can_report_extents else whole

    def read_allocated(self, offset: int, buffer: memoryview) -> Sequence[tuple[int, int]]:
        inside = max(0, min(len(buffer), self.size - offset))
        if inside:
            self._container.read_into(offset, buffer[:inside])
        fill_zero(buffer[inside:])
        return []

    def close(self) -> None:
        self._container.close()


class _LayeredSource(ImageStack[StackedImage]):
    """A chain of one or more images as one disk. Reads may come from many threads at once."""

    def __init__(self, disk: FrozenDisk, images: Sequence[StackedImage]) -> None:
        super().__init__(images, disk.size)
        self._disk = disk

    def extents(self) -> Sequence[Extent]:
        """A map: what the first layer that holds it says, ZERO where none holds it. Raises ``ReadFailed``."""
        check_read(self.identity, self.size, 0, 0, closed=self._closed)
        seen: list[Extent] = []
        for image in self._images:
            seen = normal([*seen, *subtract(self._allocation(image), seen)])
        whole = [Extent(0, self.size, Kind.ZERO)] if self.size else []
        return normal([*seen, *subtract(whole, seen)])

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """Tracking in the image: the bitmap ``since`` and whatever was put above the layer that has it. Tracking by
        layer: all that the top layer holds. Raises ``ChangesUnknown``, ``ReadFailed``."""
        check_read(self.identity, self.size, 0, 0, closed=self._closed)
        if self._disk.tracking is Tracking.LAYER and isinstance(self._images[0], Qcow2Image):
            return self._as_data(self._allocation(self._images[0]))
        if self._disk.tracking is Tracking.IMAGE:
            return self._changed_by_bitmap(since)
        raise ChangesUnknown(self._disk.key, ReasonCode.NO_TRACKING, f"{self.identity} records no changes")

    def _changed_by_bitmap(self, since: ChangeId) -> Sequence[Extent]:
        """The deepest layer that has the bitmap is where recording began. Layers above it were put there later: they
        carry the bitmap on (libvirt gives a new overlay one of the same name), or else all that they hold is new."""
        images = [image for image in self._images if isinstance(image, Qcow2Image)]
        if not images:
            raise ChangesUnknown(self._disk.key, ReasonCode.NO_TRACKING, f"{self.identity} is a raw image")
        changes: list[Extent] = []
        above: list[Qcow2Image] = []
        lost: ChangesUnknown | None = None
        found = False
        for image in images:
            try:
                marked = image.changed(since)
            except ChangesUnknown as error:
                if error.reason != ReasonCode.TRACKING_LOST:
                    raise
                lost = lost or error
                above.append(image)
                continue
            found = True
            changes += [*marked, *(e for upper in above for e in self._as_data(self._allocation(upper)))]
            above = []
        if not found and lost is not None:
            raise lost
        return self._as_data(normal(changes))

    def _allocation(self, image: StackedImage) -> list[Extent]:
        """Within the disk; what lies behind the image's end is ZERO, and the layers under it are not asked."""
        held = self._cut(image.allocation())
        if image.size < self.size:
            held.append(Extent(image.size, self.size - image.size, Kind.ZERO))
        return normal(held)

    def _as_data(self, extents: Sequence[Extent]) -> list[Extent]:
        return self._cut(normal(Extent(e.start, e.length) for e in extents))

    def _cut(self, extents: Sequence[Extent]) -> list[Extent]:
        return intersect(extents, [Extent(0, self.size)]) if self.size else []


def _image(container: BlockSource, layer: Layer, disk: FrozenDisk, mode: str) -> StackedImage:
    if layer.format is Format.QCOW2:
        return Qcow2Image(container, mode=mode, disk=disk.key)
    return _RawImage(container, disk.size or container.size)


def _check_chain(images: Sequence[StackedImage], disk: FrozenDisk, mode: str) -> None:
    """Raises ``TransportRefused`` unless these images together are the disk that was frozen."""

    def refused(reason: str, detail: str) -> TransportRefused:
        return TransportRefused(mode, disk.key, reason, detail)

    *upper, last = images
    for image in upper:
        if isinstance(image, _RawImage):
            raise refused("raw-above-layers", image.identity)
    top = images[0]
    if isinstance(top, Qcow2Image) and top.size != disk.size:
        raise refused("size-mismatch", f"{top.identity} holds {top.size} bytes, the disk has {disk.size}")
    if isinstance(top, _RawImage) and align_up(top.size, SECTOR) < disk.size:
        raise refused("container-too-small", f"{top.identity} has {top.size} bytes, the disk has {disk.size}")
    if isinstance(last, Qcow2Image) and last.header.backing is not None:
        raise refused("backing-missing", f"{last.identity} rests on {last.header.backing!r}")
