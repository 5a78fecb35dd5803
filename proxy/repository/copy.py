"""Copies restore points from one repository to another: other keys, other chunk size, other store.

    each machine, oldest point first:   there already? -> images -> read back, if asked -> manifest = the copy exists

Two repositories have no ids in common, so what is there already is known by *images*: a copied image records of which it is
a copy (``ReasonCode.COPIED``: repository and image digest, in the signed manifest). A point is copied on top of the nearest
point of its machine whose images are in both: only chunks whose ids differ between the two in the source are read. Without
one everything is read, and only what the target lacks is stored. Every byte was compared with its id when it was read.

Killed at any moment, the target has whole points and what the next copy of the same point finds by deduplication.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC
from enum import StrEnum
from itertools import groupby
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from proxy.errors import (
    ChangesUnknown,
    ConfigurationError,
    FormatError,
    IntegrityError,
    RunFailed,
)
from proxy.extents import Extent, Kind, aligned, intersect, normal
from proxy.model import ImageInfo, Reason, ReasonCode, RestorePoint, RestorePointId
from proxy.ports import ImageReader, Progress
from proxy.repository.format import ID_BYTES, SEGMENT_CHUNKS
from proxy.repository.index import IndexView
from proxy.repository.repository import Repository
from proxy.repository.selection import Selection, folder_of, point_of, select
from proxy.repository.writer import RepositoryImageWriter
from proxy.transfer import Judge, copy

__all__ = ["Copied", "CopyProgress", "Outcome", "Selection", "changed_extents", "copy_points", "identities"]


class Outcome(StrEnum):
    """``PRESENT``: the target has it. ``BURIED``: it was deleted there on purpose, and is not brought back. ``LEFT_OUT``: it
    holds the appliance's secrets, and the target is not encrypted."""

    COPIED = "copied"
    PRESENT = "present"
    BURIED = "buried"
    LEFT_OUT = "left-out"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of one point. ``machine`` and its name are empty for a manifest that cannot be read. Bytes: read from the
    source's images; of chunks that the target did not have; and what they take there."""

    point: RestorePointId
    machine: str
    machine_name: str
    outcome: Outcome
    why: str = ""
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """The ``number``-th of ``count`` points (from 1 on), and how far its disk is, in bytes."""

    point: RestorePointId
    machine_name: str
    number: int
    count: int
    disk: Progress


def copy_points(
    source: Repository,
    target: Repository,
    selection: Selection | None = None,
    *,
    read_back: bool = False,
    remarks: Sequence[Reason] = (),
    progress: Callable[[CopyProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Copied]:
    """Copy, one point after the other; closing the generator ends the work. ``read_back``: what was copied is read from the
    target and compared with the source's ids before the point is sealed. ``remarks``: are added to the reasons of each copy.
    ``progress`` is called from worker threads.

    A point that cannot be copied (damaged in the source, its lease lost) is told, and the rest goes on. Raises
    ``RestorePointNotFound`` for a selection that means nothing, ``ConfigurationError`` for two that are one repository, and
    what nobody can go on from: ``RepositoryFull``, ``RepositoryUnavailable``, ``Cancelled``.
    """
    if source.settings.id == target.settings.id:
        raise ConfigurationError("copy", "source and target are the same repository")
    chosen = select(source, selection or Selection())
    number = 0
    for _, group in groupby(chosen, key=folder_of):
        work = _Machine(source, target, read_back=read_back, remarks=remarks, cancelled=cancelled)
        for name in group:
            number += 1
            yield work.copy(name, _Sink(progress, number, len(chosen)))


def changed_extents(old: IndexView, new: IndexView, chunk_size: int) -> list[Extent]:
    """Where two images of one repository and one size differ, to the chunk, with what the new one holds there."""
    out: list[Extent] = []
    for segment, (before, after) in enumerate(zip(old.table, new.table, strict=True)):
        known, fresh = old.segment_ids(before), new.segment_ids(after)
        if known == fresh:
            continue
        was, now = (np.frombuffer(ids, np.uint8).reshape(SEGMENT_CHUNKS, ID_BYTES) for ids in (known, fresh))
        largest: NDArray[np.uint8] = now.max(axis=1)  # of an id's bytes; an id of zeroes is a chunk of zeroes
        for number in np.nonzero((was != now).any(axis=1))[0].tolist():
            start = (segment * SEGMENT_CHUNKS + number) * chunk_size
            kind = Kind.DATA if largest[number] else Kind.ZERO
            out.append(Extent(start, min(chunk_size, new.size - start), kind))
    return normal(out)


@dataclass(frozen=True, slots=True)
class _Base:
    """An image that is in both repositories, to copy another one on top of."""

    source: ImageInfo
    target: ImageInfo


class _Sink:
    """Passes progress of one point on."""

    def __init__(self, progress: Callable[[CopyProgress], None] | None, number: int, count: int) -> None:
        self._progress = progress
        self._number = number
        self._count = count

    def of(self, point: RestorePoint) -> Callable[[Progress], None] | None:
        progress = self._progress
        if progress is None:
            return None
        return lambda disk: progress(CopyProgress(point.id, point.machine_name, self._number, self._count, disk))


class _Machine:
    """Copies points of one machine, oldest first."""

    def __init__(
        self,
        source: Repository,
        target: Repository,
        *,
        read_back: bool,
        remarks: Sequence[Reason],
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._read_back = read_back
        self._remarks = remarks
        self._cancelled = cancelled
        self._names: list[str] = []
        self._there: dict[RestorePointId, RestorePoint] = {}
        self._damaged: dict[RestorePointId, str] = {}
        self._looked = False

    def copy(self, name: str, sink: _Sink) -> Copied:
        begin = perf_counter()
        done = Copied(point_of(name), "", "", Outcome.FAILED)
        try:
            point = self._source.read_manifest(name)
            done = replace(done, machine=point.machine, machine_name=point.machine_name)
            done = self._copy(point, done, sink)
        except FileNotFoundError:
            done = replace(done, why="was deleted in the source meanwhile")
        except (RunFailed, IntegrityError, FormatError) as error:
            done = replace(done, why=error.message)
        return replace(done, seconds=perf_counter() - begin)

    def _copy(self, point: RestorePoint, done: Copied, sink: _Sink) -> Copied:
        self._look(point.machine)
        if point.id in self._there:
            return replace(done, outcome=Outcome.PRESENT)
        if point.of_appliance and self._source.settings.sealed and not self._target.settings.sealed:
            return replace(done, outcome=Outcome.LEFT_OUT, why="it holds secrets, and the target is not encrypted")
        if point.id in self._damaged:
            return replace(done, why=f"in the target: {self._damaged[point.id]}")
        if self._target.ledger.tombstones.get(self._target.ledger.name(point)) is not None:
            return replace(done, outcome=Outcome.BURIED, why="it was deleted in the target")
        # Held while the point is read, so that nothing of it is collected meanwhile.
        with self._source.reading(f"copy of restore point {point.id}"):
            images = [self._image(point, image, sink.of(point)) for image in point.images]
        self._there[point.id] = self._target.seal(
            _copied(self._source, point, [image for image, _ in images], self._remarks)
        )
        return replace(
            done,
            outcome=Outcome.COPIED,
            bytes_read=sum(read for _, read in images),
            bytes_new=sum(image.bytes_new for image, _ in images),
            bytes_stored=sum(image.bytes_stored for image, _ in images),
        )

    def _look(self, machine: str) -> None:
        """What both have of the machine."""
        if not self._looked:
            self._names = self._source.ledger.names(machine)
            there, damaged = self._target.survey(machine)
            self._there = {p.id: p for p in there}
            self._damaged = {point_of(d.object): f"object {d.object} {d.why}" for d in damaged}
            self._looked = True

    def _image(
        self, point: RestorePoint, image: ImageInfo, progress: Callable[[Progress], None] | None
    ) -> tuple[ImageInfo, int]:
        """The image in the target, and the bytes that were read for it."""
        with ExitStack() as held:
            writer, extents = self._writer(point, image)
            held.enter_context(writer)
            reader = held.enter_context(self._source.open_image(point, image.key))
            whole = max(reader.granularity, writer.granularity)
            areas = aligned(reader.extents() if extents is None else extents, whole, image.size)
            reader.will_read(areas)
            result = copy(
                reader,
                writer,
                areas,
                disk=image.key,
                granularity=whole,
                progress=progress,
                cancelled=self._cancelled,
            )
            written = writer.seal()
            if self._read_back:
                self._compare(point, written, reader, areas)
        origin = Reason(ReasonCode.COPIED, f"repository {self._source.settings.id.hex()}, image {image.digest}")
        made = replace(
            image,
            index=written.index,
            digest=written.digest,
            bytes_new=written.bytes_new,
            bytes_stored=written.bytes_stored,
            reasons=(*image.reasons, origin),
        )
        return made, result.bytes_read

    def _writer(self, point: RestorePoint, image: ImageInfo) -> tuple[RepositoryImageWriter, list[Extent] | None]:
        """On top of an image that both have, and what differs from it; else empty, and ``None``: everything."""
        base = self._base(point, image)
        if base is not None:
            try:
                extents = self._difference(base, image)
                return self._target.image_writer(image.key, image.size, base.target), extents
            except (ChangesUnknown, IntegrityError):
                pass  # the base is damaged, here or there; to copy everything heals
        return self._target.image_writer(image.key, image.size, None), None

    def _base(self, point: RestorePoint, image: ImageInfo) -> _Base | None:
        """Of the nearest point, older ones first."""
        older = [name for name in self._names if point_of(name) < point.id]
        younger = [name for name in self._names if point_of(name) > point.id]
        for name in (*reversed(older), *younger):
            there = self._there.get(point_of(name))
            copied = None if there is None else there.image(image.key)
            if copied is None or copied.size != image.size:
                continue
            with suppress(FormatError, FileNotFoundError):
                here = self._source.read_manifest(name).image(image.key)
                if here is not None and identities(self._source, here) & identities(self._target, copied):
                    return _Base(here, copied)
        return None

    def _difference(self, base: _Base, image: ImageInfo) -> list[Extent]:
        where = f"disk {image.key}"
        with (
            closing(self._source.open_view(where, base.source)) as old,
            closing(self._source.open_view(where, image)) as new,
        ):
            return changed_extents(old, new, self._source.granularity)

    def _compare(self, point: RestorePoint, written: ImageInfo, source: ImageReader, areas: Sequence[Extent]) -> None:
        unsealed = replace(point, images=(written,))
        with self._target.open_image(unsealed, written.key) as image:
            whole = max(image.granularity, source.granularity)
            holds = intersect(
                aligned(image.extents(), whole, image.size), normal(Extent(a.start, a.length) for a in areas)
            )
            image.will_read(holds)
            copy(image, _Comparison(source, image.identity), holds, disk=written.key, granularity=whole)


class _Comparison(Judge):
    """A sink that compares what the target gives with the ids of the source's chunks."""

    def __init__(self, source: ImageReader, what: str) -> None:
        super().__init__(source)
        self._what = what

    def write(self, offset: int, data: memoryview) -> None:
        for wrong in self.differing(offset, data):
            raise IntegrityError(f"copy of {self._what}, offset {wrong.start}", "reads back differently")

    def zero(self, offset: int, length: int) -> None:
        for at in range(offset, offset + length, self.image.granularity):
            if self.image.digest_at(at) is not None:
                raise IntegrityError(f"copy of {self._what}, offset {at}", "reads back as zeroes")


_ORIGIN = re.compile(r"repository ([0-9a-f]{32}), image ([0-9a-f]{64})")


def identities(repository: Repository, image: ImageInfo) -> set[tuple[str, str]]:
    """Repository and image digest, of the image and of all images that it is a copy of. Two images that have one in
    common hold the same bytes."""
    origins = (_ORIGIN.fullmatch(reason.detail) for reason in image.reasons if reason.code is ReasonCode.COPIED)
    return {(repository.settings.id.hex(), image.digest), *((o[1], o[2]) for o in origins if o is not None)}


def _copied(
    source: Repository, point: RestorePoint, images: Sequence[ImageInfo], remarks: Sequence[Reason]
) -> RestorePoint:
    sealed = f", sealed there {point.sealed_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if point.sealed_at else ""
    reason = Reason(ReasonCode.COPIED, f"repository {source.settings.id.hex()}{sealed}")
    return replace(point, images=tuple(images), reasons=(*point.reasons, reason, *remarks))
