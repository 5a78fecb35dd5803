"""Which files caused an increment: changed chunks of a disk, down to the blocks in them, down to whose blocks these are.

A chunk counts whole, since whole it was read and stored. Its bytes are divided among the blocks in it that really differ::

    chunk    |................................|   256 KiB changed, 3 of its blocks differ
    blocks       ##                    #
    owners       /var/log/syslog       journal    2/3 and 1/3 of 256 KiB

So the sums add up to what changed, to the byte.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mounter.layout import ext_owners, ntfs_owners
from mounter.layout.model import Bytes, LayoutDoubt, Numbers, guarded
from mounter.layout.owners import FREE, JOURNAL, METADATA, Owners, Part, paths
from mounter.ports import FileType, Volume
from proxy.extents import Extent, segments, total
from proxy.ports import ImageReader
from proxy.units import KiB, MiB

# What is compared at once: file systems have no smaller blocks that matter.
UNIT = 1 * KiB

# Bytes of both images that are held at once.
_SEGMENT = 4 * MiB

_OWNERS: Mapping[str, Callable[[Bytes], Owners]] = {
    "ext2": ext_owners.owners,
    "ext3": ext_owners.owners,
    "ext4": ext_owners.owners,
    "ntfs": ntfs_owners.owners,
}
_T = TypeVar("_T")

_PARTS = {METADATA: Part.METADATA, JOURNAL: Part.JOURNAL, FREE: Part.FREE}


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a disk: where it lies (bytes), and the volume in it. ``volume.type`` is what is there, ``swap`` too."""

    offset: int
    volume: Volume
    bytes: Bytes


@dataclass(frozen=True, slots=True)
class Cause:
    """``bytes`` of an increment. ``path``: the guest's, of files and directories; else empty. ``device``: of the volume, or
    of the disk where that is not in one. ``guessed``: told by the catalog's difference of names and sizes, not by blocks."""

    part: Part
    path: bytes
    device: str
    bytes: int
    guessed: bool = False


def causes(
    device: str, before: ImageReader | None, now: ImageReader, changed: Sequence[Extent], places: Sequence[Place]
) -> list[Cause]:
    """What the changed extents (sorted, within ``now``) of one disk are due to; the largest first. ``before``: ``None`` to
    count changed chunks by all that lies in them; of the image only file system
    tables are read. Raises what the images raise."""
    known = [_known(place) for place in places]
    weights: dict[tuple[int, int], float] = {(-1, 0): 0.0}
    for offsets, weight in _units(before, now, changed):
        _weigh(offsets, weight, places, known, weights)
    shares = _whole(weights, total(changed))
    return sorted(_named(device, shares, places, known), key=lambda cause: (-cause.bytes, cause.path))


def by_index(cause: Cause, changes: Iterable[tuple[bytes, int]]) -> list[Cause]:
    """Divide what could not be told from blocks among files that differ in the catalog (path and size), by their sizes. No
    file gets more than its size; what is left stays as it was."""
    sizes = {(number, path): size for number, (path, size) in enumerate(changes) if size > 0}
    all_sizes = sum(sizes.values())
    if not all_sizes:
        return [cause]
    given = min(cause.bytes, all_sizes)
    shares = _whole(Counter(sizes), given)
    found = [Cause(Part.FILE, path, cause.device, size, guessed=True) for (_, path), size in shares.items() if size]
    rest = cause.bytes - given
    return found + ([Cause(cause.part, b"", cause.device, rest)] if rest else [])


def directories(found: Iterable[Cause], most: int = 20) -> list[tuple[bytes, int]]:
    """Directories by what all below them caused. One is left out where a single directory in it accounts for nearly all."""
    sums: Counter[bytes] = Counter()
    most_below: dict[bytes, int] = {}
    parents: dict[bytes, bytes] = {}
    for cause in found:
        chain = list(_above(cause.path, f"{cause.device}:".encode())) if cause.path else []
        if cause.part is Part.DIRECTORY:
            chain.insert(0, cause.path)
        parents.update(pairwise(chain))
        for path in chain:
            sums[path] += cause.bytes
    for path, above in parents.items():
        most_below[above] = max(most_below.get(above, 0), sums[path])
    kept = [(path, size) for path, size in sums.items() if most_below.get(path, 0) * 10 < size * 9]
    return sorted(kept, key=lambda each: (-each[1], each[0]))[:most]


def _above(path: bytes, unmounted: bytes) -> Iterator[bytes]:
    """The directories above a guest path, up to its volume's root: ``/``, ``C:`` or ``/dev/sdb1:``."""
    while path != unmounted and b"/" in path and path != b"/":
        path = path.rpartition(b"/")[0] or b"/"
        yield path


def _known(place: Place) -> Owners | None:
    """Whose the blocks of a volume are, ``None`` where that cannot be told."""
    make = _OWNERS.get(place.volume.type)
    if make is None:
        return None
    try:
        return guarded(lambda: make(place.bytes))
    except LayoutDoubt:
        return None  # its bytes are then told by the catalog, or not at all


def _units(
    before: ImageReader | None, now: ImageReader, changed: Sequence[Extent]
) -> Iterator[tuple[Numbers, NDArray[np.float64]]]:
    """Offsets of blocks that differ, and how many bytes each stands for."""
    per_chunk = now.granularity // UNIT
    for extent in segments(changed, _SEGMENT):
        count = -(-extent.length // UNIT)
        unlike = np.ones(count, dtype=np.bool_)
        if before is not None:
            unlike = (_read(before, extent, count) != _read(now, extent, count)).any(axis=1)
        first = extent.start // now.granularity * per_chunk
        unit = extent.start // UNIT + np.arange(count, dtype=np.int64)
        chunk = (unit - first) // per_chunk
        differing = np.bincount(chunk, weights=unlike)
        unlike |= differing[chunk] == 0  # the same bytes under two ids: then all of the chunk counts
        length = np.full(count, UNIT, dtype=np.float64)
        length[-1] = extent.length - (count - 1) * UNIT
        size = np.bincount(chunk, weights=length)
        share = size / np.maximum(np.bincount(chunk, weights=unlike), 1)
        yield unit[unlike] * UNIT, share[chunk[unlike]]


def _read(image: ImageReader, extent: Extent, count: int) -> NDArray[np.uint8]:
    """Blocks of an extent; zeroes behind the end of a shorter image."""
    buffer = bytearray(count * UNIT)
    length = max(0, min(extent.length, image.size - extent.start))
    if length:
        image.read_into(extent.start, memoryview(buffer)[:length])
    return np.frombuffer(buffer, dtype=np.uint8).reshape(-1, UNIT)


def _weigh(
    offsets: Numbers,
    weight: NDArray[np.float64],
    places: Sequence[Place],
    known: Sequence[Owners | None],
    weights: dict[tuple[int, int], float],
) -> None:
    """Add the weight of each block to its place (-1: in none) and owner."""
    outside = np.ones(len(offsets), dtype=np.bool_)
    for number, (place, owners) in enumerate(zip(places, known, strict=True)):
        inside = outside & (offsets >= place.offset) & (offsets < place.offset + place.bytes.size)
        outside &= ~inside
        if inside.any():
            here = offsets[inside] - place.offset
            owner = np.zeros(len(here), dtype=np.int64) if owners is None else owners.at(here)
            values, positions = np.unique(owner, return_inverse=True)
            for value, sum_ in zip(
                values.tolist(), np.bincount(positions, weights=weight[inside]).tolist(), strict=True
            ):
                weights[number, value] = weights.get((number, value), 0.0) + sum_
    weights[-1, 0] += float(weight[outside].sum())


def _whole(weights: Mapping[_T, float], wanted: int) -> dict[_T, int]:
    """Whole numbers in proportion to the weights that add up to ``wanted``: the largest remainders get what is left."""
    sum_ = sum(weights.values())
    exact = {key: weight * wanted / sum_ for key, weight in weights.items()} if sum_ else {}
    out = {key: int(value) for key, value in exact.items()}
    order = sorted(exact, key=lambda key: out[key] - exact[key])
    for key in order[: wanted - sum(out.values())]:
        out[key] += 1
    return out


def _named(
    device: str, shares: Mapping[tuple[int, int], int], places: Sequence[Place], known: Sequence[Owners | None]
) -> Iterator[Cause]:
    """Shares as causes; those of inodes get their paths."""
    for number in range(-1, len(places)):
        mine = {owner: size for (place, owner), size in shares.items() if place == number and size}
        if number < 0:
            yield from (Cause(Part.UNPARTITIONED, b"", device, size) for size in mine.values())
            continue
        volume, owners = places[number].volume, known[number]
        if owners is None:
            part = Part.SWAP if volume.type == "swap" else Part.OTHER
            yield from (Cause(part, b"", volume.device, size) for size in mine.values())
            continue
        found = paths(owners.tree, (owner for owner in mine if owner >= 0))
        for owner, size in mine.items():
            path = found.get(owner)
            if owner < 0 or path is None:
                yield Cause(_PARTS.get(owner, Part.OTHER), b"", volume.device, size)
            else:
                kind = owners.tree.nodes[owner].type
                part = Part.DIRECTORY if kind is FileType.DIRECTORY else Part.FILE
                yield Cause(part, volume.guest_path(path), volume.device, size)
