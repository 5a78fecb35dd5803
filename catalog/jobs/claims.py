"""Claims: which waiting task may run now, under all limits at once.

A running task occupies its keys. A waiting one can begin when none of its keys is full or closed, its job has room, and the
proxy that asks is one that should do it. Those that cannot are passed over: a task that needs what is free is never behind one
that needs what is full. The caller's transaction is the only one that writes, so what is counted here stays true until it ends.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import closing
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from catalog.jobs.limits import Limits, own_key
from catalog.jobs.proxies import Proxies
from catalog.jobs.tables import RUNNING, WAITING, JobRunRow, TaskRow
from catalog.jobs.values import ProxyFacts, TaskKind

# Waiting tasks that are fetched at once: most often one of the first can begin.
_AT_ONCE = 500

URGENT = (TaskKind.RESTORE.value, TaskKind.FILES.value, TaskKind.INVENTORY.value)
"""Kinds that a person waits for in need: they do not wait for a night's backups to leave a slot."""

URGENT_SLOTS = 2
"""As many of them as a proxy takes beyond its slots. More would only slow each other down."""


class Occupied:
    """What running tasks hold, against the limits. Counted once, when it is made."""

    def __init__(self, session: Session, limits: Limits, closed: Collection[str] = ()) -> None:
        held: Counter[str] = Counter()
        self.by_proxy: Counter[str] = Counter()
        self.urgent_by_proxy: Counter[str] = Counter()
        self._by_run: Counter[str | None] = Counter()
        columns = select(TaskRow.machine, TaskRow.keys, TaskRow.proxy, TaskRow.job_run, TaskRow.kind).where(RUNNING)
        for machine, keys, proxy, job_run, kind in session.execute(columns):
            held.update((*own_key(machine, kind), *json.loads(keys)))
            self.by_proxy[proxy] += 1
            self.urgent_by_proxy[proxy] += kind in URGENT
            self._by_run[job_run] += 1
        room = select(JobRunRow.id, JobRunRow.parallel).where(JobRunRow.parallel.is_not(None), RUNNING)
        self._parallel = {id_: parallel for id_, parallel in session.execute(room) if parallel is not None}
        self._held, self._limits, self._closed = held, limits, frozenset(closed)
        self._full: dict[str, bool] = {}

    def is_full(self, key: str) -> bool:
        """Nothing that holds this key may begin now."""
        known = self._full.get(key)
        if known is None:
            limit = self._limits.of(key)
            known = key in self._closed or (limit is not None and self._held[key] >= limit)
            self._full[key] = known
        return known

    def is_at_limit(self, job_run: str | None) -> bool:
        """The job run has as many running tasks as its policy allows."""
        limit = self._parallel.get(job_run or "")
        return limit is not None and self._by_run[job_run] >= limit

    def full_keys(self, keys: Iterable[str]) -> list[str]:
        """Those among them that are full."""
        return [key for key in keys if self.is_full(key)]


def next_task(  # noqa: PLR0917  # they are what a claim is; see Tasks.claim
    session: Session,
    proxy: ProxyFacts,
    now: datetime,
    limits: Limits,
    closed: Collection[str],
    within: float,
    only: str | None = None,
) -> str | None:
    """Id of the task that this proxy should take now; ``None`` when there is none. Order: priority of the job, planned
    begin, id. Reads each waiting task's row at most once, and each combination of keys and paths only once. Where all slots
    are taken, a few more are there for what is urgent."""
    occupied = Occupied(session, limits, closed)
    full = occupied.by_proxy[proxy.name] >= proxy.slots
    if full and (not proxy.slots or occupied.urgent_by_proxy[proxy.name] >= URGENT_SLOTS):
        return None
    reached = frozenset[str]().union(*(living.paths for living in Proxies(session).living(within)))
    fits: dict[tuple[str, str], bool] = {}
    query = select(TaskRow.id, TaskRow.machine, TaskRow.keys, TaskRow.paths, TaskRow.job_run, TaskRow.kind).where(
        WAITING,
        or_(TaskRow.not_before.is_(None), TaskRow.not_before <= now),
        or_(TaskRow.deadline.is_(None), TaskRow.deadline > now),
    )
    if only is not None:
        query = query.where(TaskRow.job_run == only)
    if full:
        query = query.where(TaskRow.kind.in_(URGENT), TaskRow.asked_by != "")
    query = query.order_by(TaskRow.priority.desc(), TaskRow.order, TaskRow.id)
    with closing(session.execute(query, execution_options={"yield_per": _AT_ONCE})) as waiting:
        for id_, machine, keys, paths, job_run, kind in waiting:
            fit = fits.get((keys, paths))
            if fit is None:
                fit = not occupied.full_keys(json.loads(keys)) and _is_for(proxy, frozenset(json.loads(paths)), reached)
                fits[keys, paths] = fit
            if fit and not occupied.is_at_limit(job_run) and not occupied.full_keys(own_key(machine, kind)):
                return str(id_)
    return None


def waiting_for(session: Session, now: datetime, limits: Limits, closed: Collection[str]) -> Counter[str]:
    """Full and closed keys, with how many waiting tasks each of them holds up."""
    occupied = Occupied(session, limits, closed)
    counted: Counter[str] = Counter()
    columns = select(TaskRow.machine, TaskRow.keys, TaskRow.kind).where(WAITING)
    columns = columns.where(or_(TaskRow.not_before.is_(None), TaskRow.not_before <= now))
    full: dict[str, list[str]] = {}
    for machine, keys, kind in session.execute(columns):
        if keys not in full:
            full[keys] = occupied.full_keys(json.loads(keys))
        counted.update(full[keys])
        counted.update(occupied.full_keys(own_key(machine, kind)))
    return counted


def _is_for(proxy: ProxyFacts, paths: frozenset[str], reached: frozenset[str]) -> bool:
    """Whoever reaches the disks without the hosts takes them; others only where no living proxy does."""
    return bool(paths & proxy.paths) or not paths & reached
