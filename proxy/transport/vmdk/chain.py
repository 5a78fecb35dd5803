"""A descriptor and all of its parents as one disk, each parent recognised by the CID that its child remembers."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Protocol

from proxy.errors import ChangesUnknown, TransportRefused
from proxy.extents import Extent, normal, subtract, total
from proxy.model import ChangeId, ReasonCode
from proxy.ports import BlockSource
from proxy.transport.guard import check_read
from proxy.transport.stack import ImageStack, StackedImage
from proxy.transport.vmdk.descriptor import (
    DESCRIPTOR_LIMIT,
    NO_PARENT,
    DiskDescriptor,
    Kind,
    VmdkReason,
    parse_disk_descriptor,
)
from proxy.transport.vmdk.images import FlatImage, Piece, SparseImage, zero_extent
from proxy.transport.vmfs.reasons import Subject

CHAIN_LIMIT = 64
"""ESXi allows 32 snapshots of a machine."""

OpenFile = Callable[[str], BlockSource]
"""Opens a file of a datastore by its path; absolute ones (``/vmfs/volumes/…``) are as the descriptor has them. Raises
``TransportRefused``, ``ReadFailed``. The chain owns what it returns."""


class _Image(StackedImage, Protocol):
    def locate(self, offset: int, length: int) -> tuple[list[Piece], list[tuple[int, int]]]: ...
    def digest(self) -> bytes: ...
    def files(self) -> list[BlockSource]: ...


class VmdkChain(ImageStack[_Image]):
    """A ``BlockSource`` over layers, top first. Reads may come from many threads at once."""

    def __init__(self, images: Sequence[_Image], descriptors: Sequence[DiskDescriptor], subject: Subject) -> None:
        super().__init__(images, images[0].size)
        self.descriptors = tuple(descriptors)
        self._subject = subject

    def extents(self) -> Sequence[Extent]:
        """See the port. Refuses (``TransportRefused``) what it does not understand in any layer."""
        check_read(self.identity, self.size, 0, 0, closed=self._closed)
        seen = self._images[0].allocation()
        for image in self._images[1:]:
            seen = normal([*seen, *subtract(image.allocation(), seen)])
        return seen if total(seen) == self.size else normal([*seen, *subtract(zero_extent(self.size), seen)])

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """Always raises ``ChangesUnknown``: the hypervisor tracks changes, not the files."""
        raise ChangesUnknown(self._subject.disk, ReasonCode.NO_TRACKING, f"{self.identity} records none ({since})")

    def pieces(self, offset: int, length: int) -> list[Piece]:
        """Where ``read_into`` would read this range, in no order and all of it: for whoever plans reads over many files.
        Raises ``ReadFailed``."""
        check_read(self.identity, self.size, offset, length, closed=self._closed)
        found: list[Piece] = []
        missing = [(offset, length)] if length else []
        for image in self._images:
            located = [image.locate(start, count) for start, count in missing]
            found += [piece for pieces, _holes in located for piece in pieces]
            missing = [hole for _pieces, holes in located for hole in holes]
        return found + [Piece(start, count, None, 0) for start, count in missing]

    def digest(self) -> bytes:
        """Of what descriptors, headers and tables say now about where the bytes are in the files; what their file system
        says about where the files are is not in it. Raises ``ReadFailed``."""
        digest = blake2b(digest_size=32)
        for descriptor, image in zip(self.descriptors, self._images, strict=True):
            facts = (descriptor.cid, descriptor.parent_cid, descriptor.parent, descriptor.extents)
            digest.update(repr(facts).encode())
            digest.update(image.digest())
        return digest.digest()

    def files(self) -> list[BlockSource]:
        """What holds the bytes of all layers, the descriptors not among them."""
        return [file for image in self._images for file in image.files()]


def open_vmdk(open_file: OpenFile, path: str, subject: Subject) -> VmdkChain:
    """The disk that the descriptor at ``path`` and its parents make up.

    Closing the source closes every file, and so does an error in here. Raises ``TransportRefused`` and whatever
    ``open_file`` raises.
    """
    descriptors: list[DiskDescriptor] = []
    images: list[_Image] = []
    with ExitStack() as opened:
        at: str | None = path
        while at is not None:
            if len(descriptors) >= CHAIN_LIMIT:
                raise _refused(subject, VmdkReason.CHAIN, f"{path} has {CHAIN_LIMIT} parents or more, or is its own")
            descriptor = _descriptor(open_file, at, subject)
            _check_parent(descriptors, descriptor, at, subject)
            images.append(_image(open_file, descriptor, at, opened, subject))
            descriptors.append(descriptor)
            at = beside(at, descriptor.parent) if descriptor.parent is not None else None
        opened.pop_all()
    return VmdkChain(images, descriptors, subject)


def beside(path: str, name: str) -> str:
    """The path of a file that a descriptor at ``path`` names."""
    return name if name.startswith("/") else str(PurePosixPath(path).parent / name)


def _descriptor(open_file: OpenFile, path: str, subject: Subject) -> DiskDescriptor:
    with open_file(path) as file:
        if not 0 < file.size <= DESCRIPTOR_LIMIT:
            raise _refused(subject, VmdkReason.DESCRIPTOR_DAMAGED, f"{path} has {file.size} bytes")
        raw = bytearray(file.size)
        file.read_into(0, memoryview(raw))
    return parse_disk_descriptor(bytes(raw), path, subject)


def _check_parent(children: Sequence[DiskDescriptor], descriptor: DiskDescriptor, path: str, subject: Subject) -> None:
    if not children:
        return
    child = children[-1]
    if child.parent_cid != descriptor.cid or child.parent_cid == NO_PARENT:
        detail = f"{path} has CID {descriptor.cid}, its child remembers {child.parent_cid}"
        raise _refused(subject, VmdkReason.PARENT_MISMATCH, detail, "the parent was written to after the snapshot")
    if child.size != descriptor.size:
        detail = f"{path} is of {descriptor.size} bytes, its child of {child.size}"
        raise _refused(subject, VmdkReason.SIZE_MISMATCH, detail)


def _image(open_file: OpenFile, descriptor: DiskDescriptor, path: str, opened: ExitStack, subject: Subject) -> _Image:
    files: list[BlockSource] = []
    for line in descriptor.extents:
        files.append(open_file(beside(path, line.file)))
        opened.callback(files[-1].close)
    if descriptor.extents[0].kind is Kind.FLAT:
        return FlatImage(list(zip(descriptor.extents, files, strict=True)), subject)
    return SparseImage(descriptor.extents[0], files[0], subject)


def _refused(subject: Subject, reason: VmdkReason, detail: str, hint: str = "") -> TransportRefused:
    return TransportRefused(subject.mode, subject.disk, reason, detail, hint=hint)
