"""What differs between two restore points of a machine, what grew, and how the machine's files grew over time.

A file differs exactly if its version in the one is not its version in the other; those versions end, or begin, at positions
between the two, so the question costs what changed, and not what there is::

              P       Q
    same      [-------------)
    removed   [---)                a row that held P and ends in (P, Q], none that holds Q
    added             [-----)      a row that begins in (P, Q] and holds Q, none that held P
    changed   [---)[--------)      both, of other content; of equal content (changed and back) it is the same file
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import nlargest
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, literal, null, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from catalog.reading import FACTS, Reader, Timeline
from catalog.tables import DirectoryRow, FileRow, NameRow, PathRow, VersionRow, VolumeRow
from catalog.text import digest, split
from catalog.values import FileVersion
from proxy.errors import SearchRefused
from proxy.model import MachineId, RestorePointId

_FILE = "file"

# Rows that a streamed answer keeps in memory at once.
_ROWS_AT_ONCE = 2_000


class ChangeKind(StrEnum):
    """What became of a file."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One file that differs. ``before`` is ``None`` if it was added, ``after`` if it was removed. ``facts``: which of its
    facts differ (``size``, ``mtime_ns``, …), empty unless it was changed."""

    kind: ChangeKind
    before: FileVersion | None
    after: FileVersion | None
    facts: tuple[str, ...] = ()

    @property
    def path(self) -> bytes:
        """The guest's path."""
        version = self.after or self.before
        return b"" if version is None else version.path

    @property
    def growth(self) -> int:
        """Bytes more than before, in regular files; less is negative."""
        return _bytes(self.after) - _bytes(self.before)


@dataclass(frozen=True, slots=True)
class Sums:
    """Entries that differ, and the bytes of regular files among them: of those added, of those removed, of those changed as
    they are now, and how many bytes the changed ones have more than before."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    bytes_added: int = 0
    bytes_removed: int = 0
    bytes_changed: int = 0
    growth_of_changed: int = 0

    @property
    def growth(self) -> int:
        """Bytes more than before."""
        return self.bytes_added - self.bytes_removed + self.growth_of_changed


@dataclass(frozen=True, slots=True)
class Grown:
    """A directory with all below it, or a file. ``growth``: bytes more in regular files, by their sizes; each hard link
    counts. ``changes``: entries that differ."""

    path: bytes
    growth: int
    changes: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What grew most, the most first; what shrank is not in it."""

    files: Sequence[Change]
    directories: Sequence[Grown]


@dataclass(frozen=True, slots=True)
class Total:
    """All regular files of an indexed restore point: how many, and their sizes in bytes."""

    point: RestorePointId
    files: int
    bytes: int


class Changes:
    """Part of a unit of work. ``under``: only a directory and what is below it, as the guest names it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._reader = Reader(session)

    def between(self, before: RestorePointId, after: RestorePointId, under: bytes = b"/") -> Iterator[Change]:
        """What differs, by path; in any order of the two restore points. As it comes from the database: an answer of any
        length takes little memory, and is to be taken before the unit ends. Raises ``FilesNotIndexed``,
        ``RestorePointNotFound``, ``SearchRefused`` for points of two machines, at once."""
        pair = self._pair(before, after, under)
        rows = self._session.execute(
            pair.query().order_by("directory", "name", "volume").execution_options(yield_per=_ROWS_AT_ONCE)
        )
        return (pair.change(row) for row in rows)

    def sums(self, before: RestorePointId, after: RestorePointId, under: bytes = b"/") -> Sums:
        """Of what differs. Raises as ``between``."""
        pair = self._pair(before, after, under)
        found = {row.kind: row for row in self._session.execute(pair.sums())}
        a, r, c = (found.get(kind.value) for kind in ChangeKind)
        return Sums(
            added=a.entries if a else 0,
            removed=r.entries if r else 0,
            changed=c.entries if c else 0,
            bytes_added=int(a.bytes_after) if a else 0,
            bytes_removed=int(r.bytes_before) if r else 0,
            bytes_changed=int(c.bytes_after) if c else 0,
            growth_of_changed=int(c.bytes_after - c.bytes_before) if c else 0,
        )

    def growth(self, before: RestorePointId, after: RestorePointId, under: bytes = b"/", limit: int = 20) -> Growth:
        """The files and the directories that grew most. Raises as ``between``."""
        pair = self._pair(before, after, under)
        files = self._session.execute(pair.grown(limit)).all()
        totals: dict[bytes, tuple[int, int]] = {}
        for directory, growth, entries in self._session.execute(pair.by_directory()):
            for above in _and_above(directory, under):
                so_far = totals.get(above, (0, 0))
                totals[above] = (so_far[0] + int(growth), so_far[1] + entries)
        grown = (Grown(path, growth, changes) for path, (growth, changes) in totals.items() if growth > 0)
        most = nlargest(limit, grown, key=lambda each: (each.growth, -len(each.path), each.path))
        return Growth([pair.change(row) for row in files], most)

    def over_time(self, machine: MachineId, under: bytes = b"/") -> Sequence[Total]:
        """All indexed restore points of a machine, oldest first, with the sizes of their files."""
        timeline = self._reader.timeline(machine)
        v = VersionRow
        mine = and_(v.volume_id.in_(self._reader.volumes_of(machine)), v.type == _FILE)
        begun, ended = (self._steps(column, mine, under) for column in (v.first, v.until))
        steps = [
            tuple(a - b for a, b in zip(begun.get(p, (0, 0)), ended.get(p, (0, 0)), strict=True))
            for p in timeline.positions
        ]
        totals = accumulate(steps, lambda a, b: (a[0] + b[0], a[1] + b[1]))
        return [Total(point, *total) for point, total in zip(timeline.ids, totals, strict=True)]

    def _steps(self, column: Any, mine: ColumnElement[bool], under: bytes) -> dict[int, tuple[int, int]]:
        """Files and bytes by the position where their versions begin, or end."""
        query: Select[Any] = select(column, func.count(), func.sum(VersionRow.size)).where(mine).group_by(column)
        if under.rstrip(b"/"):
            query = _with_path(query.select_from(VersionRow), VersionRow.file_id).where(_below(under))
        return {position: (files, int(size)) for position, files, size in self._session.execute(query)}

    def _pair(self, before: RestorePointId, after: RestorePointId, under: bytes) -> "_Pair":
        a, b = self._reader.indexed(before), self._reader.indexed(after)
        if a.machine_id != b.machine_id:
            raise SearchRefused(f"{before} and {after} are restore points of two machines")
        volumes = self._reader.volumes_of(a.machine_id)
        return _Pair(self._reader.timeline(a.machine_id), volumes, a.position, b.position, under)


class _Pair:
    """The questions about two positions; ``_early`` is the lower one, whichever was asked for first."""

    def __init__(self, timeline: Timeline, volumes: Sequence[int], before: int, after: int, under: bytes) -> None:
        self._timeline = timeline
        self._volumes = volumes
        self._early, self._late = sorted((before, after))
        self._backwards = before > after
        self._under = under

    def query(self) -> Select[Any]:
        """All that differs: the file's path, and the version's facts before and after as ``b_…`` and ``a_…``."""
        return select(self._rows())

    def sums(self) -> Select[Any]:
        """Entries and bytes by kind."""
        rows = self._rows()
        before, after = _size(rows, "b_"), _size(rows, "a_")
        columns = (func.count().label("entries"), func.sum(before).label("bytes_before"))
        return select(rows.c.kind, *columns, func.sum(after).label("bytes_after")).group_by(rows.c.kind)

    def by_directory(self) -> Select[Any]:
        """Growth and entries of each directory that holds a change itself."""
        rows = self._rows()
        growth = _size(rows, "a_") - _size(rows, "b_")
        return select(rows.c.directory, func.sum(growth), func.count()).group_by(rows.c.directory)

    def grown(self, limit: int) -> Select[Any]:
        """The files that grew most."""
        rows = self._rows()
        growth = _size(rows, "a_") - _size(rows, "b_")
        return select(rows).where(growth > 0).order_by(growth.desc(), rows.c.directory, rows.c.name).limit(limit)

    def change(self, row: Any) -> Change:
        """A row of ``query`` as a value."""
        before = self._timeline.value(row, "b_") if row.b_first is not None else None
        after = self._timeline.value(row, "a_") if row.a_first is not None else None
        facts: tuple[str, ...] = ()
        if before is not None and after is not None:
            facts = tuple(name for name in FACTS if getattr(before, name) != getattr(after, name))
        return Change(ChangeKind(row.kind), before, after, facts)

    def _rows(self) -> Any:
        early, late = aliased(VersionRow), aliased(VersionRow)
        p, q = self._early, self._late
        held_early = and_(early.volume_id.in_(self._volumes), early.first <= p, early.until > p, early.until <= q)
        held_late = and_(late.volume_id.in_(self._volumes), late.first > p, late.first <= q, late.until > q)
        ended = select(*self._columns(early, late)).select_from(early)
        ended = ended.outerjoin(late, and_(late.file_id == early.file_id, held_late))
        ended = ended.where(held_early, or_(late.id.is_(None), late.content != early.content))
        before = exists().where(early.file_id == late.file_id, held_early)
        begun = select(*self._columns(None, late)).select_from(late).where(held_late, ~before)
        halves = (_with_path(ended, early.file_id), _with_path(begun, late.file_id))
        if self._under.rstrip(b"/"):
            halves = (halves[0].where(_below(self._under)), halves[1].where(_below(self._under)))
        return union_all(*halves).subquery("changes")

    def _columns(self, early: Any, late: Any) -> list[Any]:
        """Kind, path, and the facts of both versions, in the order in which they were asked for."""
        before, after = (late, early) if self._backwards else (early, late)
        if before is not None and after is not None:
            alone = ChangeKind.ADDED if self._backwards else ChangeKind.REMOVED
            kind: Any = case((late.id.is_(None), literal(alone.value)), else_=literal(ChangeKind.CHANGED.value))
        else:
            kind = literal((ChangeKind.REMOVED if after is None else ChangeKind.ADDED).value)
        columns = [kind.label("kind"), VolumeRow.name.label("volume"), PathRow.path.label("directory"), NameRow.name]
        for prefix, version in (("b_", before), ("a_", after)):
            for name in ("first", "until", *FACTS):
                column = getattr(VersionRow, name)
                value = null().cast(column.type) if version is None else getattr(version, name)
                columns.append(value.label(prefix + name))
        return columns


def _with_path(query: Select[Any], file_id: Any) -> Select[Any]:
    query = query.join(FileRow, FileRow.id == file_id).join(NameRow, NameRow.id == FileRow.name_id)
    query = query.join(DirectoryRow, DirectoryRow.id == FileRow.directory_id)
    return query.join(PathRow, PathRow.id == DirectoryRow.path_id).join(
        VolumeRow, VolumeRow.id == DirectoryRow.volume_id
    )


def _below(under: bytes) -> ColumnElement[bool]:
    """The directory itself as an entry of the one above, and what is in it and below: bytes compare as bytes everywhere."""
    top = under.rstrip(b"/")
    above, name = split(top)
    itself = and_(PathRow.digest == digest(above), NameRow.name == name)
    return or_(itself, PathRow.digest == digest(top), and_(PathRow.path > top + b"/", PathRow.path < top + b"0"))


def _size(rows: Any, prefix: str) -> Any:
    """Bytes of regular files, 0 for all else."""
    return case((rows.c[prefix + "type"] == _FILE, rows.c[prefix + "size"]), else_=0)


def _bytes(version: FileVersion | None) -> int:
    return version.size if version is not None and version.type == _FILE else 0


def _and_above(directory: bytes, under: bytes) -> Iterator[bytes]:
    """A directory and those that it is in, up to ``under``."""
    top = under.rstrip(b"/")
    while True:
        yield directory
        above, _, name = directory.rpartition(b"/")
        if directory in (top, b"/") or not name or len(directory) < len(top):
            return
        if not above and not directory.startswith(b"/"):
            return
        directory = above or b"/"
