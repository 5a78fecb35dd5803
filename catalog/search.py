"""Searches over all machines and restore points: a question as a value, answers page by page, in bounded time.

Candidates come from ``Pattern.lookups`` one after the other, in an order that does not change, in portions; each portion is
joined with the versions and narrowed down by the database. So a page costs what is on it, and not what there is.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from sqlalchemy import Select, Subquery, func, select
from sqlalchemy.orm import Session, aliased

from catalog.candidates import Candidates, Key, Portion
from catalog.patterns import Kind, Pattern, understood
from catalog.reading import FACTS, Reader
from catalog.tables import OPEN, DirectoryRow, NameRow, PathRow, VersionRow, VolumeRow
from catalog.values import FileVersion
from proxy.errors import SearchRefused
from proxy.model import MachineId, RestorePointId

# Files and names that one call looks at before it says what it has so far: about a second.
LOOKED_AT_MOST = 200_000

# Files looked at in one question: from a screenful, for an answer at once, to what costs some 20 ms.
FIRST_PORTION = 256
LARGEST_PORTION = 8192

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for. Each file once, in its newest version, or as it is in ``point``; ``all_versions``: in each.

    ``machines``: only these, all when empty. Sizes in bytes, both included. ``modified_since`` included,
    ``modified_until`` not. ``types``: as ``mounter.ports.FileType``, all when empty. ``deleted``: only what the newest
    indexed restore point of its machine does not hold any more. ``limit``: files on one page. ``after``: goes on behind a
    page that ended there (``Found.after``); all else must be the same then.
    """

    pattern: str = ""
    kind: Kind = Kind.AUTO
    machines: frozenset[MachineId] = frozenset()
    point: RestorePointId | None = None
    min_size: int | None = None
    max_size: int | None = None
    modified_since: datetime | None = None
    modified_until: datetime | None = None
    types: frozenset[str] = frozenset()
    deleted: bool = False
    all_versions: bool = False
    limit: int = 1000
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One page. Exact names first, then names that begin so, names that hold it, directories that do. ``after``: where the
    next page begins, ``None`` when this was the last. ``complete``: false when the search ended before the page was full,
    because it had looked at ``LOOKED_AT_MOST`` candidates: there may be more behind ``after``."""

    files: Sequence[FileVersion]
    after: str | None = None
    complete: bool = True


@dataclass(slots=True)
class _Page:
    """A page in the making. ``place``: lookup and key of the last file that was taken, or that was looked at."""

    rows: list[Any] = field(default_factory=list)
    files: int = 0
    place: tuple[int, Key] | None = None
    looked_at: int = 0


class Search:
    """Answers one ``Query``. Part of a unit of work. Raises ``FilesNotIndexed``, ``RestorePointNotFound`` for its point."""

    def __init__(self, session: Session, query: Query) -> None:
        self._session = session
        self._query = query
        self._reader = Reader(session)
        self._pattern: Pattern = understood(query.pattern, query.kind)
        self._point = None if query.point is None else self._reader.indexed(query.point)
        machines = query.machines if self._point is None else {self._point.machine_id}
        self._volumes = self._reader.volumes_of(*machines) if machines else None
        if query.machines and self._point is not None and self._point.machine_id not in query.machines:
            self._volumes = []

    def run(self) -> Found:
        """One page."""
        page = _Page()
        first, key = _read_place(self._query)
        for number in self._lookups(first, going_on=key is not None):
            candidates = self._candidates(number)
            size = max(FIRST_PORTION, min(2 * self._query.limit, LARGEST_PORTION))
            while True:
                portion = candidates.portion(key, size)
                if not self._take(page, number, portion):
                    return self._found(page, complete=True)
                page.looked_at += portion.looked_at
                if portion.last is None:
                    break
                key = portion.last
                page.place = (number, key)
                if page.looked_at >= LOOKED_AT_MOST:
                    return self._found(page, complete=False)
                size = min(2 * size, LARGEST_PORTION)
            key = None
        page.place = None
        return self._found(page, complete=True)

    def _lookups(self, first: int, *, going_on: bool) -> Sequence[int]:
        """Which of the pattern's lookups, from the one on in which the page before ended."""
        numbers = range(len(self._pattern.lookups))
        if not self._pattern.either:
            return numbers[first:]
        if first == 0 and not going_on:
            first = 1 if self._candidates(1).are_few() else 0
        return (0, *numbers[2:]) if first == 0 else numbers[first:]

    def _candidates(self, number: int) -> Candidates:
        return Candidates(self._session, self._pattern.lookups[number], self._volumes)

    def _take(self, page: _Page, number: int, portion: Portion) -> bool:
        """Whether the page has room for more."""
        if portion.keys is None:
            return True
        last: Key | None = None
        for row in self._session.execute(self._narrowed(portion.keys, portion.key_names)):
            if self._pattern.rank(row.folded_path, row.folded_name) not in portion.ranks:
                continue
            key: Key = tuple(getattr(row, name) for name in portion.key_names)
            if key != last:
                if page.files == self._query.limit:
                    return False
                page.files += 1
                last = key
                page.place = (number, key)
            page.rows.append(row)
        return True

    def _narrowed(self, keys: Subquery, key_names: Sequence[str]) -> Select[Any]:
        """Candidates with their paths and those of their versions that are wanted, in order of their keys."""
        c, v, q = keys.c, VersionRow, self._query
        columns: list[Any] = [VolumeRow.machine_id, VolumeRow.name.label("volume"), PathRow.path.label("directory")]
        columns += [PathRow.folded.label("folded_path"), NameRow.name, NameRow.folded.label("folded_name"), *c]
        columns += [v.first, v.until, *(getattr(v, name) for name in FACTS)]
        query: Select[Any] = select(*columns).select_from(keys).join(v, v.file_id == c.file_id)
        query = query.join(DirectoryRow, DirectoryRow.id == c.directory_id).join(NameRow, NameRow.id == c.name_id)
        query = query.join(PathRow, PathRow.id == DirectoryRow.path_id)
        query = query.join(VolumeRow, VolumeRow.id == DirectoryRow.volume_id)
        if self._point is not None:
            query = query.where(v.first <= self._point.position, v.until > self._point.position)
        elif not q.all_versions:
            later = aliased(v)
            newest = select(func.max(later.first)).where(later.file_id == c.file_id).scalar_subquery()
            query = query.where(v.first == newest)
        if self._volumes is not None:
            query = query.where(DirectoryRow.volume_id.in_(self._volumes))
        query = query.where(*self._conditions())
        return query.order_by(*(c[name] for name in key_names), v.first.desc())

    def _conditions(self) -> list[Any]:
        v, q = VersionRow, self._query
        wanted: list[Any] = []
        if q.min_size is not None:
            wanted.append(v.size >= q.min_size)
        if q.max_size is not None:
            wanted.append(v.size <= q.max_size)
        if q.modified_since is not None:
            wanted.append(v.mtime_ns >= _nanoseconds(q.modified_since))
        if q.modified_until is not None:
            wanted.append(v.mtime_ns < _nanoseconds(q.modified_until))
        if q.types:
            wanted.append(v.type.in_(sorted(str(t) for t in q.types)))
        if q.deleted:
            there = aliased(v)
            held = select(there.id).where(there.file_id == v.file_id, there.until == OPEN)
            wanted.append(~held.exists())
        return wanted

    def _found(self, page: _Page, *, complete: bool) -> Found:
        after = None if page.place is None else _place(self._query, *page.place)
        return Found(self._reader.values(page.rows), after, complete)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _place(query: Query, lookup: int, key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([_mark(query), lookup, *key]).encode()).decode()


def _read_place(query: Query) -> tuple[int, Key | None]:
    """Raises ``SearchRefused`` for what no page of this query ended with."""
    if query.after is None:
        return 0, None
    try:
        mark, lookup, *key = json.loads(base64.urlsafe_b64decode(query.after.encode()))
    except (ValueError, TypeError) as error:
        raise SearchRefused("the place to go on from is not one that a page ended with") from error
    if mark != _mark(query):
        raise SearchRefused("the place to go on from is that of another search")
    if type(lookup) is not int or not 0 <= lookup < 1 << 31 or not all(type(part) in (int, str) for part in key):
        raise SearchRefused("the place to go on from is not one that a page ended with")
    return lookup, tuple(key)


def _mark(query: Query) -> str:
    """Tells queries apart, but for the length of their pages."""
    facts = replace(query, limit=0, after=None, machines=frozenset(), types=frozenset())
    told = repr((facts, sorted(query.machines), sorted(map(str, query.types))))
    return blake2b(told.encode(errors="backslashreplace"), digest_size=6).hexdigest()
