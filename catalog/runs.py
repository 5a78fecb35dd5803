"""Job runs: what was done when, how it ended and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from catalog import figures
from catalog.tables import RunRow
from proxy.errors import LanfreeError
from proxy.model import MachineId, Reason, ReasonCode, RestorePointId, RunId

BACKUP = "backup"
"""Kind of the runs whose failure says that a machine is not protected as it should be."""


class RunState(StrEnum):
    """``RUNNING`` also stands for a run whose process was killed, until somebody finishes it."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a job for one machine. ``kind``: ``backup``, ``restore``, …; ``error``: the error's ``code``."""

    id: RunId
    machine: MachineId
    machine_name: str
    kind: str
    state: RunState
    started_at: datetime
    finished_at: datetime | None = None
    point: RestorePointId | None = None
    error: str | None = None
    message: str | None = None
    reasons: tuple[Reason, ...] = ()


class Runs:
    """All SQL about runs. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def start(self, run: RunId, machine: MachineId, machine_name: str, kind: str, at: datetime) -> None:
        """Record that a run began. Idempotent by id: a run that goes on after a crash keeps its first beginning."""
        row = self._session.get(RunRow, run)
        if row is None:
            row = RunRow(id=run, machine_id=machine, machine_name=machine_name, kind=kind, started_at=at)
            self._session.add(row)
        row.state, row.finished_at, row.error, row.message = RunState.RUNNING.value, None, None, None
        row.reasons = []
        self._session.flush()

    def finish(
        self,
        run: RunId,
        at: datetime,
        *,
        point: RestorePointId | None = None,
        error: LanfreeError | None = None,
        reasons: Sequence[Reason] = (),
    ) -> None:
        """Record how a run ended: failed exactly if there is an error. A run that was never started is not recorded."""
        row = self._session.get(RunRow, run)
        if row is None:
            return
        row.state = (RunState.DONE if error is None else RunState.FAILED).value
        row.finished_at, row.point_id = at, point
        row.error, row.message = (None, None) if error is None else (error.code, error.message)
        row.reasons = [{"code": r.code.value, "detail": r.detail} for r in reasons]
        self._session.flush()
        if error is not None and row.kind == BACKUP:
            figures.failed(self._session, row.machine_id, row.started_at, error)

    def list(self, machine: MachineId | None = None, limit: int = 100) -> Sequence[Run]:
        """Newest first."""
        query = select(RunRow).order_by(RunRow.started_at.desc(), RunRow.id.desc()).limit(limit)
        if machine is not None:
            query = query.where(RunRow.machine_id == machine)
        return [_run(row) for row in self._session.scalars(query)]

    def last_of_each(self, kind: str, since: datetime) -> Mapping[MachineId, Run]:
        """The run of this kind that began last, of each machine that had one since then."""
        r = RunRow
        last = select(r.machine_id, func.max(r.started_at).label("at")).where(r.kind == kind, r.started_at >= since)
        newest = last.group_by(r.machine_id).subquery()
        query = select(r).join(newest, and_(newest.c.machine_id == r.machine_id, newest.c.at == r.started_at))
        found = self._session.scalars(query.where(r.kind == kind).order_by(r.id))
        return {row.machine_id: _run(row) for row in found}


def _run(row: RunRow) -> Run:
    return Run(
        id=row.id,
        machine=row.machine_id,
        machine_name=row.machine_name,
        kind=row.kind,
        state=RunState(row.state),
        started_at=row.started_at,
        finished_at=row.finished_at,
        point=row.point_id,
        error=row.error,
        message=row.message,
        reasons=tuple(Reason(ReasonCode(r["code"]), r["detail"]) for r in row.reasons),
    )
