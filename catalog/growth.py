"""How much restore points brought, by day, and what all of them come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.tables import ImageRow, MachineRow, RestorePointRow


@dataclass(frozen=True, slots=True)
class Day:
    """Restore points that were made on a day (UTC), as far as they are still there; bytes that their images stored and read."""

    day: date
    points: int
    stored: int
    read: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all restore points: how many, of how many machines, and the bytes that they stored when they were made."""

    points: int
    machines: int
    stored: int


@dataclass(frozen=True, slots=True)
class Verified:
    """How restore points stand, as the repository's records said when they were last looked at. ``newest``, ``oldest``: of the
    moments at which one was verified; ``never``: how many never were."""

    newest: datetime | None
    oldest: datetime | None
    points: int
    never: int
    damaged: int


class Growth:
    """Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def days(self, since: datetime) -> Sequence[Day]:
        """Those on which any was made, oldest first. Reads the images of all that were made since then."""
        p, i = RestorePointRow, ImageRow
        sqlite = self._session.get_bind().dialect.name == "sqlite"
        day = func.date(p.created_at) if sqlite else func.date(func.timezone("UTC", p.created_at))
        query = (
            select(day, func.count(p.id.distinct()), func.sum(i.bytes_stored), func.sum(i.bytes_read))
            .join(i, i.point_id == p.id)
            .where(p.created_at >= since)
            .group_by(day)
            .order_by(day)
        )
        return [
            Day(date.fromisoformat(found) if isinstance(found, str) else found, points, int(stored), int(read))
            for found, points, stored, read in self._session.execute(query)
        ]

    def totals(self) -> Totals:
        """Of what is kept with each machine: nothing is counted anew."""
        m = MachineRow
        query = select(func.sum(m.points), func.count(), func.sum(m.stored)).where(m.points > 0)
        points, machines, stored = self._session.execute(query).one()
        return Totals(int(points or 0), int(machines), int(stored or 0))

    def verified(self) -> Verified:
        """Looks at every restore point's row."""
        p = RestorePointRow
        damaged = func.count().filter(p.health == "damaged")
        query = select(
            func.max(p.verified_at), func.min(p.verified_at), func.count(p.verified_at), func.count(), damaged
        )
        newest, oldest, points, there, bad = self._session.execute(query).one()
        return Verified(newest, oldest, int(points), int(there) - int(points), int(bad))
