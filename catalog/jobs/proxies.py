"""Proxies: who works on tasks, and who was heard of lately. The database's own clock decides."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from catalog.jobs import rows
from catalog.jobs.tables import ProxyRow
from catalog.jobs.values import ProxyFacts

# Seconds since its last heartbeat after which a proxy counts as dead where nothing else is said: twelve beats of five seconds.
# Less takes runs away from proxies that were only slow; more leaves snapshots open for longer when one dies.
LIVING = 60.0


class Proxies:
    """All SQL about proxies. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def beat(self, facts: ProxyFacts) -> bool:
        """A heartbeat, at the database's time (``seen_at`` is not looked at). ``False`` when this name was declared ``gone``:
        others took its runs over, it may not go on with them, and starts again under another name."""
        values = {
            "machine": facts.machine,
            "paths": sorted(facts.paths),
            "version": facts.version,
            "slots": facts.slots,
            "closed": sorted(facts.closed),
        }
        values["seen_at"] = rows.database_now(self._session)
        if rows.insert_new(
            self._session, ProxyRow, {"name": facts.name, "started_at": facts.started_at, "gone_at": None, **values}
        ):
            return True
        known = update(ProxyRow).where(ProxyRow.name == facts.name, ProxyRow.gone_at.is_(None)).values(**values)
        return self._session.scalar(known.returning(ProxyRow.name)) is not None

    def list(self) -> Sequence[ProxyFacts]:
        """All that are not gone, also those that were not heard of for long; by machine and name."""
        query = select(ProxyRow).where(ProxyRow.gone_at.is_(None)).order_by(ProxyRow.machine, ProxyRow.name)
        return [rows.proxy(row) for row in self._session.scalars(query)]

    def living(self, within: float = LIVING) -> Sequence[ProxyFacts]:
        """Those whose last heartbeat is not older than so many seconds."""
        since = rows.database_now(self._session) - timedelta(seconds=within)
        return [facts for facts in self.list() if facts.seen_at >= since]

    def gone(self, name: str) -> bool:
        """Count on this proxy no more: it ended, or was not heard of for too long. ``False`` when somebody said so before,
        or nobody knows it: whoever gets ``True`` takes over. The name is never used again."""
        query = update(ProxyRow).where(ProxyRow.name == name, ProxyRow.gone_at.is_(None))
        query = query.values(gone_at=rows.database_now(self._session))
        return self._session.scalar(query.returning(ProxyRow.name)) is not None

    def forget(self, before: datetime) -> None:
        """Remove what is known of those that are gone since before that. Names are made anew at each start, so that none of
        them comes back."""
        self._session.execute(delete(ProxyRow).where(ProxyRow.gone_at < before))
