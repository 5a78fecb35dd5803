"""Lists of machines, in pages: filtered, sorted and cut by the database.

Protection changes by itself as time goes by, so it is no column: it follows from ``due_at`` and the moment of the question.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.orm import Session

from catalog.figures import folded
from catalog.inventory import DiskFacts
from catalog.scope import EVERY, reached
from catalog.tables import MachineFactsRow, MachineRow, UtcTime
from proxy.errors import ConfigurationError
from proxy.model import MachineId, RestorePointId

PROTECTED, OVERDUE, FAILED = "protected", "overdue", "failed"
NEVER, EXCLUDED, FORMER = "never", "excluded", "former"

BY_SEVERITY = (FAILED, NEVER, OVERDUE, PROTECTED, EXCLUDED, FORMER)
"""What needs somebody first."""

Key = tuple[str | int | float | None, ...]
"""Where a page ended: the value that the list is sorted by, and the identity of the last machine."""


@dataclass(frozen=True, slots=True)
class MachineQuery:
    """Empty says nothing. ``text``: anywhere in the name, the host or the identity, upper and lower case alike. ``folder``: and
    all below it. ``tag``: ``category:name``, or a name alone. ``machines``: patterns of those that the caller reaches."""

    text: str = ""
    host: str = ""
    hypervisor: str = ""
    cluster: str = ""
    state: str = ""
    protection: tuple[str, ...] = ()
    tag: str = ""
    folder: str = ""
    job: str = ""
    machines: tuple[str, ...] = (EVERY,)


@dataclass(frozen=True, slots=True)
class ListedMachine:
    """A machine with the figures of its restore points; as ``catalog.tables.MachineRow``, times in UTC."""

    id: MachineId
    name: str
    host: str
    hypervisor: str
    cluster: str
    folder: str
    tags: tuple[str, ...]
    state: str | None
    agent: bool
    template: bool
    protection: str
    newest_at: datetime | None
    newest_point: RestorePointId | None
    oldest_at: datetime | None
    points: int
    size: int
    stored: int
    objective: float | None
    due_at: datetime | None
    jobs: tuple[str, ...]
    excluded: str
    failed_at: datetime | None
    failure: str | None
    failure_message: str | None
    first_seen: datetime | None
    seen_at: datetime | None
    gone_at: datetime | None


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What only a page about one machine shows."""

    disks: tuple[DiskFacts, ...] = ()
    pool: str = ""
    datastores: tuple[str, ...] = ()
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Leaf:
    """A machine in a tree."""

    id: MachineId
    name: str
    host: str
    hypervisor: str
    cluster: str
    folder: str
    state: str | None
    protection: str
    points: int


def protection_at(now: datetime) -> ColumnElement[str]:
    """How a machine stands at a moment."""
    m = MachineRow
    return case(
        (m.gone_at.is_not(None), FORMER),
        (m.excluded != "", EXCLUDED),
        (m.failed_at.is_not(None), FAILED),
        (m.points == 0, NEVER),
        (m.due_at < now, OVERDUE),
        else_=PROTECTED,
    )


# Of machines without restore points, in the order by their newest one.
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)

_TEXTS = ("name", "host")

# Databases limit how many values a question may have.
_VALUES = 500

# Of whole numbers that a database compares.
_LARGEST = 2**63


class Machines:
    """Reads lists of machines. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def page(
        self, query: MachineQuery, now: datetime, *, sort: str = "name", limit: int = 100, after: Key | None = None
    ) -> tuple[Sequence[ListedMachine], Key | None]:
        """The machines behind ``after``, and where the next page begins; ``None`` on the last one. ``sort``: ``name``,
        ``host``, ``newest``, ``points``, ``size``, ``stored``, ``severity``; with ``-``, from its end. Raises
        ``ConfigurationError`` for a place that is none."""
        by, down = sort.removeprefix("-"), sort.startswith("-")
        value = _sorted_by(by, now)
        # Ids alone are sorted, rows are fetched for one page: a sort carries along all that it is asked for.
        wanted = self._narrowed(select(MachineRow.id, value), query, now)
        if after is not None:
            here, there = tuple_(value, MachineRow.id), tuple_(*_place(by, after))
            wanted = wanted.where(here < there if down else here > there)
        ends = [value.desc(), MachineRow.id.desc()] if down else [value, MachineRow.id]
        found = self._session.execute(wanted.order_by(*ends).limit(limit + 1)).all()
        following = (_plain(found[limit - 1][1]), found[limit - 1][0]) if len(found) > limit else None
        ids = [row[0] for row in found[:limit]]
        rows: dict[MachineId, ListedMachine] = {}
        for start in range(0, len(ids), _VALUES):
            some = MachineRow.id.in_(ids[start : start + _VALUES])
            for row, protection in self._session.execute(select(MachineRow, protection_at(now)).where(some)):
                rows[row.id] = _listed(row, protection)
        return [rows[id_] for id_ in ids if id_ in rows], following  # one may have gone meanwhile

    def counts(self, query: MachineQuery, now: datetime) -> Mapping[str, int]:
        """Machines by protection."""
        # By name: what stands in a question twice is not the same to PostgreSQL once it holds a moment.
        protection = protection_at(now).label("protection")
        counted: Select[Any] = self._narrowed(select(protection, func.count()), query, now)
        counted = counted.group_by(literal_column("protection"))
        return {row[0]: row[1] for row in self._session.execute(counted)}

    def by_hypervisor(self, query: MachineQuery) -> Mapping[str, int]:
        """Machines that are shown, by the hypervisor that shows them."""
        m = MachineRow
        shown = select(m.hypervisor, func.count()).where(m.gone_at.is_(None), m.seen_at.is_not(None))
        if EVERY not in query.machines:
            shown = shown.where(reached(self._session, query.machines))
        return {row[0]: row[1] for row in self._session.execute(shown.group_by(m.hypervisor))}

    def get(self, machine: MachineId, now: datetime) -> ListedMachine | None:
        """By identity."""
        found = self._session.execute(select(MachineRow, protection_at(now)).where(MachineRow.id == machine)).first()
        return _listed(found[0], found[1]) if found is not None else None

    def facts(self, machine: MachineId) -> MachineFacts:
        """What else is known of a machine."""
        row = self._session.get(MachineFactsRow, machine)
        if row is None:
            return MachineFacts()
        disks = tuple(DiskFacts(**disk) for disk in row.disks)
        return MachineFacts(disks, row.pool, tuple(row.datastores), row.attributes)

    def leaves(self, query: MachineQuery, now: datetime) -> Sequence[Leaf]:
        """All of them, by name: a tree needs little of each."""
        m = MachineRow
        columns = (m.id, m.name, m.host, m.hypervisor, m.cluster, m.folder, m.state, protection_at(now), m.points)
        wanted = self._narrowed(select(*columns), query, now).order_by(m.folded, m.id)
        return [Leaf(*row) for row in self._session.execute(wanted)]

    def _narrowed(self, wanted: Any, query: MachineQuery, now: datetime) -> Select[Any]:
        m = MachineRow
        conditions: list[ColumnElement[bool]] = []
        if EVERY not in query.machines:
            conditions.append(reached(self._session, query.machines))
        for column, value in (
            (m.host, query.host),
            (m.hypervisor, query.hypervisor),
            (m.cluster, query.cluster),
            (m.state, query.state),
        ):
            if value:
                conditions.append(column == value)
        if query.text:
            conditions.append(_holds(query.text))
        if query.protection:
            conditions.append(protection_at(now).in_(query.protection))
        if query.tag:
            tag = query.tag
            exact = m.tags.contains(f"\n{tag}\n", autoescape=True)
            conditions.append(exact if ":" in tag else exact | m.tags.contains(f":{tag}\n", autoescape=True))
        if query.folder:
            path = query.folder.rstrip("/")
            conditions.append((m.folder == path) | m.folder.startswith(f"{path}/", autoescape=True))
        if query.job:
            conditions.append(_names_job(query.job))
        narrowed: Select[Any] = wanted.where(and_(*conditions)) if conditions else wanted
        return narrowed


def _sorted_by(by: str, now: datetime) -> ColumnElement[Any]:
    m = MachineRow
    known: dict[str, Any] = {
        "name": m.folded,
        "host": m.host,
        "newest": func.coalesce(m.newest_at, literal(_NEVER, UtcTime)),
        "points": m.points,
        "size": m.size,
        "stored": m.stored,
        "severity": case({name: rank for rank, name in enumerate(BY_SEVERITY)}, value=protection_at(now)),
    }
    if by not in known:
        raise ConfigurationError("sort", f"machines are not sorted by {by!r}", hint=f"one of {', '.join(known)}")
    return known[by]  # type: ignore[no-any-return]


def _holds(text: str) -> ColumnElement[bool]:
    m, sought = MachineRow, folded(text)
    named = m.folded.contains(sought, autoescape=True) | func.lower(m.host).contains(sought, autoescape=True)
    return named | m.id.startswith(sought, autoescape=True)


def _names_job(job: str) -> ColumnElement[bool]:
    return cast(MachineRow.jobs, Text).contains(json.dumps(job), autoescape=True)


def _place(by: str, after: Key) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """A place in the list, as it is compared. Raises ``ConfigurationError`` for one that is none."""
    value, machine = after
    if by == "newest" and isinstance(value, str):
        try:
            return literal(datetime.fromisoformat(value).astimezone(UTC), UtcTime), literal(str(machine))
        except (ValueError, OverflowError):
            value = None
    elif by in _TEXTS and isinstance(value, str):
        return literal(value), literal(str(machine))
    elif by not in {"newest", *_TEXTS} and isinstance(value, int) and abs(value) < _LARGEST:
        return literal(value, BigInteger), literal(str(machine))
    raise ConfigurationError("cursor", "not one that this list gave", hint="take 'next' of the page before as it is")


def _plain(value: Any) -> str | int | float | None:
    return value.isoformat() if isinstance(value, datetime) else value


def _listed(row: MachineRow, protection: str) -> ListedMachine:
    same = ("id", "name", "host", "hypervisor", "cluster", "folder", "state", "agent", "template", "newest_at")
    more = ("newest_point", "oldest_at", "points", "size", "stored", "objective", "due_at", "excluded", "failed_at")
    last = ("failure", "failure_message", "first_seen", "seen_at", "gone_at")
    values: dict[str, Any] = {name: getattr(row, name) for name in (*same, *more, *last)}
    tags = tuple(tag for tag in row.tags.split("\n") if tag)
    return ListedMachine(**values, tags=tags, jobs=tuple(row.jobs), protection=protection)
