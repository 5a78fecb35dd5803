"""Marks that differ when something changed, in a few rows: for whoever looks every second or two."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.jobs.tables import RUNNING, JobRow, JobRunRow, ProxyRow, TaskRow


@dataclass(frozen=True, slots=True)
class Marks:
    """Of jobs, their runs, tasks, and proxies. Equal ones: most likely nothing changed; progress is no change."""

    jobs: str
    job_runs: str
    tasks: str
    proxies: str


def marks(session: Session) -> Marks:
    """All of them. Each reads an index's end, or one of the small tables."""
    job = session.execute(select(func.count(), func.sum(JobRow.revision), func.max(JobRow.updated_at)))
    run = session.execute(select(func.max(JobRunRow.started_at), func.max(JobRunRow.ended_at)))
    begun = select(func.max(TaskRow.created_at), func.max(TaskRow.ended_at))
    running = select(func.count(), func.max(TaskRow.claimed_at)).select_from(TaskRow).where(RUNNING)
    proxy = session.execute(select(ProxyRow.name, ProxyRow.gone_at).order_by(ProxyRow.name))
    return Marks(
        jobs=repr(job.one()),
        job_runs=repr(run.one()),
        tasks=repr((session.execute(begun).one(), session.execute(running).one())),
        proxies=repr(proxy.all()),
    )
