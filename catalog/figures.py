"""What a machine's restore points come to, kept in its row with each of them: lists of ten thousand machines count nothing.

All of it can be made again from the restore points (``recount``), which a rebuild does.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from catalog.tables import ImageRow, MachineRow, RestorePointRow, VolumeRow
from proxy.errors import LanfreeError
from proxy.model import MachineId, RestorePoint, RestorePointId


def folded(name: str) -> str:
    """A name as lists sort it and searches see it. What is stored was made by this: a change of it needs a migration."""
    return name.replace("\0", "").casefold()


def due(newest: datetime | None, objective: float | None) -> datetime | None:
    """When a machine's newest restore point will be too old. ``objective``: hours."""
    return newest + timedelta(hours=objective) if newest is not None and objective is not None else None


def touch(session: Session, point: RestorePoint) -> None:
    """A restore point is about to be added: the machine's row, made where there is none."""
    machine = _alone(session, point.machine)
    if machine is None:
        add_unless_there(session, [{"id": point.machine, "name": point.machine_name, "host": point.host}])
        machine = _alone(session, point.machine) or session.get_one(MachineRow, point.machine)
    if machine.seen_at is None and (machine.newest_at is None or point.created_at >= machine.newest_at):
        machine.name, machine.host, machine.folded = point.machine_name, point.host, folded(point.machine_name)
        machine.size = sum(image.size for image in point.images)
        machine.hypervisor = machine.hypervisor or point.hypervisor
    if machine.newest_at is None or point.created_at >= machine.newest_at:
        machine.newest_at, machine.newest_point = point.created_at, point.id
        machine.due_at = due(point.created_at, machine.objective)
    if machine.oldest_at is None or point.created_at < machine.oldest_at:
        machine.oldest_at = point.created_at
    if machine.failed_at is not None and machine.failed_at <= (point.sealed_at or point.created_at):
        machine.failed_at = machine.failure = machine.failure_message = None
    machine.points += 1
    machine.stored += sum(image.bytes_stored for image in point.images)
    session.flush()


def restored(session: Session, point: RestorePoint, before: int) -> None:
    """A restore point is brought up to date. ``before``: bytes that its images were said to have stored."""
    now = sum(image.bytes_stored for image in point.images)
    if now != before:
        m = MachineRow
        session.execute(update(m).where(m.id == point.machine).values(stored=m.stored + (now - before)))


def stored_in(session: Session, point: RestorePointId) -> int:
    """Bytes that its images stored."""
    query = select(func.sum(ImageRow.bytes_stored)).where(ImageRow.point_id == point)
    return int(session.scalar(query) or 0)


def without(session: Session, machine: MachineId, stored: int) -> None:
    """A restore point was removed. ``stored``: bytes of its images. A machine that no hypervisor shows goes with its last."""
    p = RestorePointRow
    row = _alone(session, machine)  # before its restore points are looked at: others may be adding one
    of_it = select(p.id, p.created_at).where(p.machine_id == machine)
    newest = session.execute(of_it.order_by(p.position.desc()).limit(1)).first()
    oldest = session.execute(of_it.order_by(p.position).limit(1)).first()
    if row is None:
        return
    if newest is None and row.seen_at is None:
        session.execute(delete(MachineRow).where(MachineRow.id == machine))
        return
    if newest is None:
        session.execute(delete(VolumeRow).where(VolumeRow.machine_id == machine))
    row.newest_at, row.newest_point = (newest.created_at, newest.id) if newest else (None, None)
    row.oldest_at = oldest.created_at if oldest else None
    row.due_at = due(row.newest_at, row.objective)
    row.points, row.stored = max(row.points - 1, 0), max(row.stored - stored, 0)
    session.flush()


def failed(session: Session, machine: MachineId, at: datetime, error: LanfreeError) -> None:
    """A machine's backup failed, unless a restore point came after it. ``at``: when it began."""
    m = MachineRow
    none_since = or_(m.newest_at.is_(None), m.newest_at < at)
    session.execute(
        update(m)
        .where(m.id == machine, none_since)
        .values(failed_at=at, failure=error.code, failure_message=error.message)
        .execution_options(synchronize_session=False)
    )


def recount(session: Session) -> None:
    """Of all machines, from their restore points: one pass over these, and one over their images."""
    m, p = MachineRow, RestorePointRow
    if _is_shared(session):
        session.execute(select(m.id).order_by(m.id).with_for_update())
    counted = select(p.machine_id, func.count().label("points")).group_by(p.machine_id).subquery()
    sums = select(p.machine_id, func.sum(ImageRow.bytes_stored).label("stored")).join(
        ImageRow, ImageRow.point_id == p.id
    )
    summed = sums.group_by(p.machine_id).subquery()
    query = select(m, counted.c.points, summed.c.stored)
    query = query.outerjoin(counted, counted.c.machine_id == m.id).outerjoin(summed, summed.c.machine_id == m.id)
    for machine, points, stored in session.execute(query):
        machine.points, machine.stored = points or 0, int(stored or 0)
    session.flush()


def add_unless_there(session: Session, machines: Sequence[Mapping[str, Any]]) -> None:
    """Rows of machines that have none; another process may have made one since somebody looked."""
    dialect = postgresql if _is_shared(session) else sqlite
    if machines:
        session.execute(dialect.insert(MachineRow).on_conflict_do_nothing(), list(machines))


def _alone(session: Session, machine: MachineId) -> MachineRow | None:
    """The machine's row as it is now, for nobody else to change until the transaction ends."""
    return session.get(MachineRow, machine, with_for_update=_is_shared(session) or None)


def _is_shared(session: Session) -> bool:
    """Whether several write at the same time; with SQLite one does."""
    return session.get_bind().dialect.name != "sqlite"
