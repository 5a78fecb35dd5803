"""Job runs: executions of jobs, and their history."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from catalog.jobs import rows
from catalog.jobs.tables import RUNNING, JobRunRow, TaskRow
from catalog.jobs.tasks import Tasks
from catalog.jobs.values import JobRun, JobRunState
from proxy.model import Reason


class JobRuns:
    """All SQL about job runs. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, run: JobRun) -> bool:
        """Record a run; ``False`` when the job has one for this moment already, or the id is known: then nothing was changed,
        and somebody else begins it."""
        return rows.insert_new(self._session, JobRunRow, rows.of_job_run(run))

    def active(self, job: str) -> JobRun | None:
        """The run of this job that goes on, if one does."""
        query = select(JobRunRow).where(JobRunRow.job == job, RUNNING).order_by(JobRunRow.started_at).limit(1)
        row = self._session.scalars(query).first()
        return None if row is None else rows.job_run(row)

    def under_way(self) -> Sequence[JobRun]:
        """All that go on, oldest first."""
        query = select(JobRunRow).where(RUNNING).order_by(JobRunRow.started_at, JobRunRow.id)
        return [rows.job_run(row) for row in self._session.scalars(query)]

    def get(self, run: str) -> JobRun | None:
        """``None`` when it is not known, or forgotten."""
        row = self._session.get(JobRunRow, run)
        return None if row is None else rows.job_run(row)

    def list(self, job: str | None = None, limit: int = 100) -> Sequence[JobRun]:
        """Newest first. ``job``: its id."""
        query = select(JobRunRow).order_by(JobRunRow.started_at.desc(), JobRunRow.id.desc()).limit(limit)
        if job is not None:
            query = query.where(JobRunRow.job == job)
        return [rows.job_run(row) for row in self._session.scalars(query)]

    def change(
        self,
        run: str,
        *,
        selected: int | None = None,
        deadline: datetime | None = None,
        reasons: Sequence[Reason] = (),
    ) -> None:
        """Facts that are known only after it began; what is ``None`` stays as it is. Reasons are added, each of them once."""
        row = self._session.get(JobRunRow, run)
        if row is not None:
            row.selected = row.selected if selected is None else selected
            row.deadline = row.deadline if deadline is None else deadline
            row.reasons = [*row.reasons, *(each for each in rows.of_reasons(reasons) if each not in row.reasons)]
            self._session.flush()

    def stop(self, run: str, now: datetime, reasons: Sequence[Reason] = ()) -> bool:
        """A person wants it to end: its waiting tasks do at once (``STOPPED``), whoever works on running ones sees ``stop_at``.
        ``False`` when it does not go on any more."""
        row = self._running(run)
        if row is None:
            return False
        row.stop_at = row.stop_at or now
        Tasks(self._session).stop(run, now, reasons)
        return True

    def end(
        self, run: str, state: JobRunState, now: datetime, reasons: Sequence[Reason] = (), notes: Iterable[str] = ()
    ) -> bool:
        """How it ended; reasons and notes are added to those that it has. ``False`` when it had ended before: then nothing
        was changed."""
        row = self._running(run)
        if row is None:
            return False
        row.state, row.ended_at = state.value, now
        row.reasons = [*row.reasons, *rows.of_reasons(reasons)]
        row.notes = [*row.notes, *notes]
        self._session.flush()
        return True

    def newest_end(self) -> datetime | None:
        """When the newest run that took place ended; ``None`` when none has."""
        took_place = JobRunRow.ended_at.is_not(None), JobRunRow.state != JobRunState.SKIPPED.value
        newest = select(JobRunRow.ended_at).where(*took_place).order_by(JobRunRow.ended_at.desc()).limit(1)
        return self._session.scalar(newest)

    def note(self, run: str, text: str) -> None:
        """Something that a person has to know of the run as a whole; said twice, it is kept once."""
        row = self._session.get(JobRunRow, run)
        if row is not None and text not in row.notes:
            row.notes = [*row.notes, text]
            self._session.flush()

    def forget(self, before: datetime, limit: int = 50) -> int:
        """Remove runs that ended before that, with their tasks, and what a person started by hand and ended before; at most
        ``limit`` runs, so that others need not wait long. Returns how many runs were removed."""
        gone = select(JobRunRow.id).where(JobRunRow.ended_at < before).order_by(JobRunRow.ended_at).limit(limit)
        runs = self._session.scalars(gone).all()
        self._session.execute(delete(JobRunRow).where(JobRunRow.id.in_(runs)))
        if len(runs) < limit:
            self._session.execute(delete(TaskRow).where(TaskRow.job_run.is_(None), TaskRow.ended_at < before))
        return len(runs)

    def _running(self, run: str) -> JobRunRow | None:
        row = self._session.get(JobRunRow, run)
        return row if row is not None and row.state == JobRunState.RUNNING.value else None
