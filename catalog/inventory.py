"""Machines as the hypervisors showed them when they were last looked at. A cache: the next look makes it again.

A machine is known by its identity, never by its host. One that is not shown any more is ``gone``, but only where everybody who
could have it has answered; machines of those who are silent stay as they were last seen.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, exists, func, insert, select, update
from sqlalchemy.orm import Session

from catalog import database
from catalog.figures import add_unless_there, due, folded
from catalog.tables import HELD, HypervisorRow, MachineFactsRow, MachineRow, RestorePointRow
from proxy.model import MachineId, RestorePointId, VirtualMachine

# Databases limit how many values a question may have.
_VALUES = 500

# Rows in memory are not looked at again: to compare ten thousand of them with each statement would take seconds.
_BLIND = {"synchronize_session": False}

OTHERS = timedelta(minutes=15)
"""Proxies look every few minutes, so that one that still looks at a hypervisor did within this time. Each has a configuration
of its own: what one of them does not know is not gone for that."""

_FACTS = ("disks", "pool", "datastores", "attributes")


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """``location``: for people. ``excluded``: code and detail of why no snapshot holds it, or empty."""

    key: str
    size: int
    format: str
    location: str = ""
    excluded: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SeenMachine:
    """A machine as it is shown now. ``hypervisor``: name of the vCenter, or of the KVM host. ``objective``: hours;
    ``excluded``: why somebody said that it need not be protected; ``failure``: when its last backup failed, code, message."""

    machine: VirtualMachine
    hypervisor: str
    disks: tuple[DiskFacts, ...] = ()
    cluster: str = ""
    folder: str = ""
    tags: tuple[str, ...] = ()
    template: bool = False
    pool: str = ""
    datastores: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    jobs: tuple[str, ...] = ()
    objective: float | None = None
    excluded: str = ""
    failure: tuple[datetime, str, str] | None = None


@dataclass(frozen=True, slots=True)
class LookedAt:
    """``kind``: ``kvm`` or ``vcenter``. ``error``: why it did not answer; empty when it did."""

    name: str
    kind: str
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ListedHypervisor:
    """``answered_at``: the last look that it answered; ``machines``: that it showed then."""

    name: str
    kind: str
    looked_at: datetime | None
    answered_at: datetime | None
    error: str
    hint: str
    machines: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a machine of the catalog was seen last: enough to tell whether it may be there still."""

    id: MachineId
    name: str
    host: str
    hypervisor: str


@dataclass(frozen=True, slots=True)
class Judged:
    """How the last verification of a restore point went."""

    point: RestorePointId
    health: str
    verified_at: datetime


class Inventory:
    """All SQL that writes what hypervisors show. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def seen(self, machines: Iterable[SeenMachine], at: datetime) -> int:
        """Record what is shown; only what changed is written, but for the time. Returns how many are new. Others that do the
        same wait for the end of this transaction."""
        database.write_alone(self._session, database.CATALOG)
        known = {row.id: row for row in self._session.scalars(select(MachineRow))}
        facts = {row.machine_id: row for row in self._session.scalars(select(MachineFactsRow))}
        new: list[dict[str, Any]] = []
        fresh: list[dict[str, Any]] = []
        shown: list[MachineId] = []
        for one in machines:
            row = known.get(one.machine.id)
            shown.append(one.machine.id)
            if row is None:
                new.append({"id": one.machine.id, **_columns(one, None), "first_seen": at, "seen_at": at})
            else:
                _change(row, {**_columns(one, row), "first_seen": row.first_seen or at})
            _keep(facts.get(one.machine.id), one, fresh)
        self._session.flush()
        add_unless_there(self._session, new)
        if fresh:
            self._session.execute(insert(MachineFactsRow), fresh)
        for start in range(0, len(shown), _VALUES):
            some = MachineRow.id.in_(shown[start : start + _VALUES])
            self._session.execute(
                update(MachineRow).where(some).values(seen_at=at, gone_at=None), execution_options=_BLIND
            )
        return len(new)

    def not_seen(self, shown: frozenset[MachineId], at: datetime, may_be_there: Callable[[Placed], bool]) -> int:
        """Machines that nobody shows, and nobody who is silent may have, are gone; how many went."""
        m = MachineRow
        query = select(m.id, m.name, m.host, m.hypervisor).where(m.gone_at.is_(None))
        gone = [
            each.id
            for each in self._session.execute(query)
            if each.id not in shown and not may_be_there(Placed(each.id, each.name, each.host, each.hypervisor))
        ]
        for start in range(0, len(gone), _VALUES):
            some = m.id.in_(gone[start : start + _VALUES])
            self._session.execute(update(m).where(some).values(gone_at=at, state=None), execution_options=_BLIND)
        # What was never backed up is nothing to remember once it is gone. The figure alone is not believed: with the machine
        # its restore points would go from the catalog.
        none = ~exists().where(RestorePointRow.machine_id == m.id)
        forgotten = delete(m).where(m.gone_at.is_not(None), m.points == 0, none)
        self._session.execute(forgotten, execution_options=_BLIND)
        return len(gone)

    def looked_at(self, hypervisors: Sequence[LookedAt], at: datetime) -> None:
        """Record how the look at each went; those that are not named, and that nobody else looks at (``others_look_at``), are
        forgotten."""
        known = {row.name: row for row in self._session.scalars(select(HypervisorRow))}
        kept = {each.name for each in hypervisors}
        kept |= self.others_look_at(kept, at)
        for row in known.values():
            if row.name not in kept:
                self._session.delete(row)
        for each in hypervisors:
            row = known.get(each.name) or HypervisorRow(name=each.name)
            row.kind, row.looked_at, row.error, row.hint = each.kind, at, each.error, each.hint
            if not each.error:
                row.answered_at = at
            self._session.add(row)
        self._session.flush()

    def others_look_at(self, ours: Collection[str], at: datetime) -> frozenset[str]:
        """Hypervisors that are none of these, and that somebody looked at lately: another proxy, which knows of them already or
        still."""
        since = at - OTHERS
        lately = select(HypervisorRow.name).where(HypervisorRow.looked_at > since)
        return frozenset(self._session.scalars(lately)) - frozenset(ours)

    def without_hypervisor(self, name: str) -> None:
        """Nobody is to look at it any more. Who does so all the same brings it back."""
        self._session.execute(delete(HypervisorRow).where(HypervisorRow.name == name), execution_options=_BLIND)

    def hypervisors(self) -> Sequence[ListedHypervisor]:
        """By name, also those that only machines name."""
        m = MachineRow
        counted = select(m.hypervisor, func.count()).where(m.gone_at.is_(None), m.seen_at.is_not(None))
        machines = {row[0]: row[1] for row in self._session.execute(counted.group_by(m.hypervisor))}
        return [
            ListedHypervisor(
                row.name, row.kind, row.looked_at, row.answered_at, row.error, row.hint, machines.get(row.name, 0)
            )
            for row in self._session.scalars(select(HypervisorRow).order_by(HypervisorRow.name))
        ]

    def holds(self, held: Iterable[RestorePointId]) -> None:
        """Which restore points are held; all others are not."""
        p, now = RestorePointRow, set(held)
        known = set(self._session.scalars(select(p.id).where(HELD)))
        for points, value in ((known - now, False), (now - known, True)):
            ordered = sorted(points)
            for start in range(0, len(ordered), _VALUES):
                some = p.id.in_(ordered[start : start + _VALUES])
                self._session.execute(update(p).where(some).values(held=value), execution_options=_BLIND)

    def hold(self, point: RestorePointId, *, held: bool) -> None:
        """One restore point is held now, or is not."""
        p = RestorePointRow
        self._session.execute(update(p).where(p.id == point).values(held=held), execution_options=_BLIND)

    def judged(self, verifications: Sequence[Judged]) -> None:
        """How the last verifications of these restore points went."""
        if not verifications:
            return
        table: Any = RestorePointRow.__table__
        change = update(table).where(table.c.id == bindparam("point"))
        change = change.values(health=bindparam("now"), verified_at=bindparam("at"))
        values = [{"point": v.point, "now": v.health, "at": v.verified_at} for v in verifications]
        self._session.connection().execute(change, values)


def _columns(one: SeenMachine, row: MachineRow | None) -> dict[str, Any]:
    """What the machine's row is to say."""
    machine, newest = one.machine, row.newest_at if row is not None else None
    failed_at, failure, message = one.failure or (None, None, None)
    if failed_at is not None and newest is not None and failed_at <= newest:
        failed_at = failure = message = None
    size = sum(disk.size for disk in machine.disks)
    return {
        "name": machine.name,
        "folded": folded(machine.name),
        "host": machine.host,
        "hypervisor": one.hypervisor,
        "cluster": one.cluster,
        "folder": one.folder,
        "tags": "".join(f"\n{tag}\n" for tag in sorted(one.tags)),
        "state": machine.state.value,
        "agent": machine.agent,
        "template": one.template,
        # Some hypervisors cannot tell sizes of machines that are off: what was known is better than nothing.
        "size": size or (row.size if row is not None else 0),
        "objective": one.objective,
        "due_at": due(newest, one.objective),
        "excluded": one.excluded,
        "failed_at": failed_at,
        "failure": failure,
        "failure_message": message,
        "jobs": sorted(one.jobs),
    }


def _change(row: object, values: Mapping[str, Any]) -> None:
    """Set what differs: what is set anew is written, equal or not."""
    for name, value in values.items():
        if getattr(row, name) != value:
            setattr(row, name, value)


def _keep(row: MachineFactsRow | None, one: SeenMachine, fresh: list[dict[str, Any]]) -> None:
    disks = [{name: getattr(disk, name) for name in DiskFacts.__dataclass_fields__} for disk in one.disks]
    values = dict(
        zip(_FACTS, (disks, one.pool, sorted(one.datastores), dict(sorted(one.attributes.items()))), strict=True)
    )
    if row is None:
        fresh.append({"machine_id": one.machine.id, **values})
    else:
        _change(row, values)
