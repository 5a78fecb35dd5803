"""Lists of restore points, in pages: a million of them, and the last page costs no more than the first.

::

    few machines (a filter, or a caller who reaches few)   their points by machine, sorted: some thousand rows at most
    only what is held                                      all of it, sorted: people hold single restore points
    otherwise, no filter of level or consistency           along the index by time
    otherwise, with one                                    along one index by level, consistency and time, for each that fits
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session

from catalog.machine_list import Key
from catalog.scope import EVERY, reached
from catalog.tables import HELD, ImageRow, MachineRow, RestorePointRow, UtcTime
from proxy.errors import ConfigurationError
from proxy.model import Consistency, Level, MachineId, RestorePointId

FEW = 100
"""Machines whose points are looked up machine by machine. With a hundred points each they are sorted in some milliseconds; of
more machines, every page along the index by time has enough."""

_VALUES = 500


@dataclass(frozen=True, slots=True)
class PointQuery:
    """Empty says nothing. ``machine``: identity; ``since``, ``until``: of their moments, ``until`` itself left out.
    ``machines``: patterns of those that the caller reaches."""

    machine: MachineId = ""
    since: datetime | None = None
    until: datetime | None = None
    levels: tuple[Level, ...] = ()
    consistencies: tuple[Consistency, ...] = ()
    held: bool | None = None
    machines: tuple[str, ...] = (EVERY,)


@dataclass(frozen=True, slots=True)
class PointLine:
    """A restore point with the sums of its images, as lists show it. ``transports``: sorted."""

    id: RestorePointId
    machine: MachineId
    machine_name: str
    host: str
    hypervisor: str
    created_at: datetime
    sealed_at: datetime | None
    level: str
    consistency: str
    frozen_seconds: float
    files_indexed_at: datetime | None
    held: bool
    health: str
    verified_at: datetime | None
    transports: tuple[str, ...] = ()
    disks: int = 0
    size: int = 0
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0


_COLUMNS: tuple[Any, ...] = (
    RestorePointRow.id,
    RestorePointRow.machine_id,
    RestorePointRow.machine_name,
    RestorePointRow.host,
    RestorePointRow.hypervisor,
    RestorePointRow.created_at,
    RestorePointRow.sealed_at,
    RestorePointRow.level,
    RestorePointRow.consistency,
    RestorePointRow.frozen_seconds,
    RestorePointRow.files_indexed_at,
    RestorePointRow.held,
    RestorePointRow.health,
    RestorePointRow.verified_at,
)
"""In the order of ``PointLine``."""


class Points:
    """Reads lists of restore points. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def page(
        self, query: PointQuery, *, newest_first: bool = True, limit: int = 100, after: Key | None = None
    ) -> tuple[Sequence[PointLine], Key | None]:
        """The points behind ``after``, and where the next page begins; ``None`` on the last one."""
        p = RestorePointRow
        conditions = _conditions(query)
        if after is not None:
            here, there = tuple_(p.created_at, p.id), tuple_(*_place(after))
            conditions.append(here < there if newest_first else here > there)
        rows = self._session.execute(self._question(query, conditions, newest_first, limit + 1)).all()
        lines = self._with_sums([PointLine(*row) for row in rows[:limit]])
        last = lines[-1] if len(rows) > limit else None
        return lines, (last.created_at.isoformat(), last.id) if last is not None else None

    def get(self, point: RestorePointId) -> PointLine | None:
        """By its whole id."""
        row = self._session.execute(select(*_COLUMNS).where(RestorePointRow.id == point)).first()
        return self._with_sums([PointLine(*row)])[0] if row is not None else None

    def _question(
        self, query: PointQuery, conditions: list[ColumnElement[bool]], newest_first: bool, limit: int
    ) -> Select[Any]:
        p = RestorePointRow
        order = [p.created_at.desc(), p.id.desc()] if newest_first else [p.created_at, p.id]
        few, wide = self._of_machines(query)
        if few is not None or query.held:
            of_few = [p.machine_id.in_(few)] if few is not None else wide
            narrow = select(*_COLUMNS).where(*of_few, *conditions, *_filters(query))
            return _sorted(narrow.cte("some").prefix_with("MATERIALIZED"), newest_first).limit(limit)
        if not query.levels and not query.consistencies:
            return select(*_COLUMNS).where(*wide, *conditions, *_filters(query)).order_by(*order).limit(limit)
        parts = [
            select(*_COLUMNS)
            .where(p.level == level.value, p.consistency == consistency.value, *wide, *conditions, *_held(query))
            .order_by(*order)
            .limit(limit)
            .subquery()
            for level, consistency in product(query.levels or Level, query.consistencies or Consistency)
        ]
        together = union_all(*(select(part) for part in parts)).subquery("together")
        return _sorted(together, newest_first).limit(limit)

    def _of_machines(self, query: PointQuery) -> tuple[list[MachineId] | None, list[ColumnElement[bool]]]:
        """The machines where they are few, else a condition."""
        m, p = MachineRow, RestorePointRow
        scope = reached(self._session, query.machines)
        if query.machine:
            return list(self._session.scalars(select(m.id).where(m.id == query.machine, scope))), []
        if EVERY in query.machines:
            return None, []
        within = select(m.id).where(scope, m.points > 0)
        few = list(self._session.scalars(within.limit(FEW + 1)))
        if len(few) <= FEW:
            return few, []
        # Of so many machines, every page along the index by time has enough: no other index shall be used.
        return None, [p.machine_id.concat("").in_(within)]

    def _with_sums(self, lines: Sequence[PointLine]) -> list[PointLine]:
        sums: dict[Any, list[Any]] = {}
        i = ImageRow
        figures = (i.size, i.bytes_read, i.bytes_new, i.bytes_stored)
        columns = (i.point_id, i.transport, func.count(), *(func.sum(figure) for figure in figures))
        for start in range(0, len(lines), _VALUES):
            ids = [line.id for line in lines[start : start + _VALUES]]
            for row in self._session.execute(
                select(*columns).where(i.point_id.in_(ids)).group_by(i.point_id, i.transport)
            ):
                sums.setdefault(row[0], []).append(row)
        return [_summed(line, sums.get(line.id, [])) for line in lines]


def _summed(line: PointLine, rows: Sequence[Any]) -> PointLine:
    values = {name: getattr(line, name) for name in PointLine.__dataclass_fields__}
    names = ("disks", "size", "bytes_read", "bytes_new", "bytes_stored")
    totals: Mapping[str, int] = {name: sum(int(row[n]) for row in rows) for n, name in enumerate(names, 2)}
    return PointLine(**{**values, **totals, "transports": tuple(sorted(row[1] for row in rows))})


def _conditions(query: PointQuery) -> list[ColumnElement[bool]]:
    p = RestorePointRow
    found: list[ColumnElement[bool]] = []
    if query.since is not None:
        found.append(p.created_at >= query.since)
    if query.until is not None:
        found.append(p.created_at < query.until)
    return found


def _filters(query: PointQuery) -> list[ColumnElement[bool]]:
    p = RestorePointRow
    found = _held(query)
    if query.levels:
        found.append(p.level.in_([level.value for level in query.levels]))
    if query.consistencies:
        found.append(p.consistency.in_([each.value for each in query.consistencies]))
    return found


def _held(query: PointQuery) -> list[ColumnElement[bool]]:
    if query.held is None:
        return []
    return [literal_column(HELD.text)] if query.held else [RestorePointRow.held.is_(False)]


def _sorted(rows: Any, newest_first: bool) -> Select[Any]:
    at, point = rows.c.created_at, rows.c.id
    return select(rows).order_by(*([at.desc(), point.desc()] if newest_first else [at, point]))


def _place(after: Key) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    try:
        at = datetime.fromisoformat(str(after[0])).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError("cursor", "not one that this list gave", hint="take 'next' as it is") from None
    return literal(at, UtcTime), literal(str(after[1]))
