"""Jobs: policies under names, and up to which moment their schedules were acted on."""

import uuid
from collections.abc import MutableMapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from catalog.jobs import rows
from catalog.jobs.policy import Policy
from catalog.jobs.tables import RUNNING, JobNameRow, JobRow, JobRunRow
from catalog.jobs.values import Job, PastJob
from proxy.errors import JobBusy, JobConflict, JobNotFound, JobUnreadable, LanfreeError

# A mark that lies further in the future keeps a job from running for nothing: a daylight-saving change set twice, or a clock in
# another time zone, is a day at most.
_BELIEVED = timedelta(hours=25)

# The error names so many jobs when one is not found: those, and a word that there are more, fit on a screen.
_NAMED = 12


class Jobs:
    """All SQL about jobs. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, name: str, policy: Policy, now: datetime) -> Job:
        """A new job, enabled; what its schedule had before ``now`` is not missed. Raises ``JobConflict``: the name is taken."""
        row = JobRow(id=uuid.uuid4().hex, name=name, policy=policy.model_dump(mode="json"), revision=1, enabled=True)
        row.created_at = row.updated_at = row.seen = now
        self._named(row, name)
        return rows.job(row)

    def get(self, name_or_id: str) -> Job:
        """By its name, else by its identity. Raises ``JobNotFound``."""
        return rows.job(self._row(name_or_id))

    def list(self, unreadable: MutableMapping[str, LanfreeError] | None = None) -> Sequence[Job]:
        """By name. Jobs whose stored policy cannot be read are left out and told there, by name; where that is ``None``, the
        first of them is raised."""
        found = []
        for row in self._session.scalars(select(JobRow).order_by(JobRow.name)):
            try:
                found.append(rows.job(row))
            except JobUnreadable as error:
                if unreadable is None:
                    raise
                unreadable[row.name] = error
        return found

    def change(self, name: str, policy: Policy, revision: int, now: datetime) -> Job:
        """Another policy in place of that of ``revision``. Runs under way keep theirs. Raises ``JobNotFound``,
        ``JobConflict``: somebody changed it meanwhile."""
        row = self._row(name)
        if row.revision != revision:
            raise JobConflict(
                row.name, f"it is at revision {row.revision}, not {revision}: somebody changed it meanwhile"
            )
        row.policy, row.revision, row.updated_at = policy.model_dump(mode="json"), revision + 1, now
        self._remember(row)
        return rows.job(row)

    def rename(self, name: str, new: str, now: datetime) -> Job:
        """Raises ``JobNotFound``, ``JobConflict``: the new name is taken."""
        row = self._row(name)
        row.revision, row.updated_at = row.revision + 1, now
        self._named(row, new)
        return rows.job(row)

    def enable(self, name: str, enabled: bool, now: datetime) -> Job:
        """Let its schedule begin runs, or not. What passed while it was disabled is not missed. Raises ``JobNotFound``."""
        row = self._row(name)
        if enabled and not row.enabled:
            row.seen = max(row.seen, now)
        if enabled != row.enabled:
            row.enabled, row.revision, row.updated_at = enabled, row.revision + 1, now
        self._session.flush()
        return rows.job(row)

    def remove(self, name: str) -> Job:
        """Remove it; its runs stay in the history. Raises ``JobNotFound``, ``JobBusy``: a run of it goes on."""
        row = self._row(name)
        busy = self._session.scalar(select(JobRunRow.id).where(JobRunRow.job == row.id, RUNNING).limit(1))
        if busy is not None:
            raise JobBusy(row.name, busy)
        job = rows.job(row)
        self._session.delete(row)
        self._session.flush()
        return job

    def seen(self, job: str, moment: datetime) -> None:
        """Its schedule has been acted on up to ``moment``. Never goes back, so that a clock that does makes nothing run twice;
        but a mark that lies further ahead than any clock is believed was set by one that was wrong, and goes back."""
        row = self._session.get(JobRow, job)
        if row is not None and (row.seen < moment or row.seen - moment > _BELIEVED):
            row.seen = moment
            self._session.flush()

    def past(self) -> Sequence[PastJob]:
        """Every job that there is or was, by its identity. Several may have had the same name, one after the other."""
        current = {row.id: row.name for row in self._session.execute(select(JobRow.id, JobRow.name))}
        by_job: dict[str, list[JobNameRow]] = {}
        for row in self._session.scalars(select(JobNameRow).order_by(JobNameRow.job, JobNameRow.name)):
            by_job.setdefault(row.job, []).append(row)
        found = []
        for job, named in by_job.items():
            named.sort(key=lambda row: (row.name == current.get(job), row.updated_at), reverse=True)
            found.append(PastJob(job, tuple(row.name for row in named), Policy.model_validate(named[0].policy)))
        return found

    def _row(self, name_or_id: str) -> JobRow:
        query = select(JobRow).where(or_(JobRow.name == name_or_id, JobRow.id == name_or_id))
        found = self._session.scalars(query).all()
        for row in sorted(found, key=lambda row: row.name != name_or_id):
            return row
        known = self._session.scalars(select(JobRow.name).order_by(JobRow.name).limit(_NAMED + 1)).all()
        raise JobNotFound(name_or_id, [*known[:_NAMED], *(["…"] if len(known) > _NAMED else [])])

    def _named(self, row: JobRow, name: str) -> None:
        with self._session.no_autoflush:
            taken = self._session.scalar(select(JobRow.id).where(JobRow.name == name))
        if taken is not None and taken != row.id:
            raise JobConflict(name, "there is a job of this name already")
        row.name = name
        self._session.add(row)
        try:
            self._session.flush()
        except IntegrityError:
            raise JobConflict(name, "there is a job of this name already") from None
        self._remember(row)

    def _remember(self, row: JobRow) -> None:
        self._session.flush()
        names = update(JobNameRow).where(JobNameRow.job == row.id)
        facts = {"name": row.name, "job": row.id, "policy": row.policy, "updated_at": row.updated_at}
        if not rows.insert_new(self._session, JobNameRow, facts):
            self._session.execute(names.where(JobNameRow.name == row.name).values(updated_at=row.updated_at))
        self._session.execute(names.values(policy=row.policy))
