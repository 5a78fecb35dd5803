"""Restore points as the catalog lists them. The repository is the truth; rows here repeat its manifests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from catalog import figures
from catalog.files import Files
from catalog.tables import ImageRow, RestorePointRow
from proxy.errors import RestorePointNotFound
from proxy.model import (
    Consistency,
    ImageInfo,
    Level,
    MachineConfiguration,
    MachineId,
    Reason,
    ReasonCode,
    RestorePoint,
    RestorePointId,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Databases limit how many values a question may have; larger pages would save nothing any more.
_VALUES = 500


@dataclass(frozen=True, slots=True)
class ListedPoint:
    """A restore point without its machine's configuration (only the manifest has that), and whether its files are indexed."""

    point: RestorePoint
    files_indexed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Recency:
    """Moments of a machine's restore points. ``full``: of the newest for which everything was read, if there is one."""

    newest: datetime
    oldest: datetime
    full: datetime | None = None


class RestorePoints:
    """All SQL about restore points. Part of a unit of work."""

    def __init__(self, session: Session, files: Files) -> None:
        self._session = session
        self._files = files

    def add(self, point: RestorePoint) -> None:
        """Record a sealed restore point. Idempotent: what is already there is brought up to date, its file index stays."""
        session = self._session
        row = session.get(RestorePointRow, point.id)
        if row is None:
            figures.touch(session, point)
            row = RestorePointRow(id=point.id, machine_id=point.machine, position=self._position(point))
            session.add(row)
        else:
            figures.restored(session, point, figures.stored_in(session, point.id))
        row.machine_name, row.host, row.hypervisor = point.machine_name, point.host, point.hypervisor
        row.run, row.parent = point.run, point.parent
        row.created_at, row.sealed_at = point.created_at, point.sealed_at
        row.level, row.consistency = point.level.value, point.consistency.value
        row.frozen_seconds, row.reasons = point.frozen_seconds, _to_json(point.reasons)
        session.flush()
        session.execute(delete(ImageRow).where(ImageRow.point_id == point.id))
        session.add_all(_image_row(point.id, image) for image in point.images)
        session.flush()

    def get(self, point: RestorePointId) -> ListedPoint:
        """Raises ``RestorePointNotFound``."""
        row = self._session.get(RestorePointRow, point)
        if row is None:
            raise RestorePointNotFound(point)
        return self._listed([row])[0]

    def list(self, machine: MachineId | None = None) -> Sequence[ListedPoint]:
        """Oldest first."""
        query = select(RestorePointRow).order_by(RestorePointRow.created_at, RestorePointRow.id)
        if machine is not None:
            query = query.where(RestorePointRow.machine_id == machine)
        return self._listed(self._session.scalars(query).all())

    def several(self, points: Sequence[RestorePointId]) -> Sequence[ListedPoint]:
        """Those of these that are there, in no order."""
        rows: list[RestorePointRow] = []
        for start in range(0, len(points), _VALUES):
            named = RestorePointRow.id.in_(points[start : start + _VALUES])
            rows += self._session.scalars(select(RestorePointRow).where(named)).all()
        return self._listed(rows)

    def recency(self) -> Mapping[MachineId, Recency]:
        """Of every machine that has restore points; one question for all of them."""
        moments = func.max(RestorePointRow.created_at), func.min(RestorePointRow.created_at)
        columns = select(RestorePointRow.machine_id, RestorePointRow.level, *moments)
        found: dict[MachineId, Recency] = {}
        for machine, level, newest, oldest in self._session.execute(
            columns.group_by(RestorePointRow.machine_id, RestorePointRow.level)
        ):
            known = found.get(machine) or Recency(newest, oldest)
            full = newest if level == Level.FULL.value else known.full
            found[machine] = Recency(max(known.newest, newest), min(known.oldest, oldest), full)
        return found

    def not_indexed(self) -> Sequence[RestorePointId]:
        """Restore points whose files are not indexed, oldest first: that order indexes fastest."""
        query = select(RestorePointRow.id).where(RestorePointRow.files_indexed_at.is_(None))
        return self._session.scalars(query.order_by(RestorePointRow.created_at, RestorePointRow.id)).all()

    def remove(self, point: RestorePointId) -> None:
        """Forget a restore point and its place in the file index. Removing what is not there is fine."""
        row = self._session.get(RestorePointRow, point)
        if row is None:
            return
        self._files.forget(point)
        machine, stored = row.machine_id, figures.stored_in(self._session, point)
        self._session.delete(row)
        self._session.flush()
        figures.without(self._session, machine, stored)

    def recount(self) -> None:
        """Make the figures of all machines again from their restore points."""
        figures.recount(self._session)

    def _position(self, point: RestorePoint) -> int:
        """Microseconds of the snapshot's moment; two points of one machine never share a position."""
        position = (point.created_at - _EPOCH) // timedelta(microseconds=1)
        taken = select(RestorePointRow.position).where(RestorePointRow.machine_id == point.machine)
        while self._session.scalar(taken.where(RestorePointRow.position == position)) is not None:
            position += 1
        return position

    def _listed(self, rows: Sequence[RestorePointRow]) -> Sequence[ListedPoint]:
        images: dict[str, list[ImageInfo]] = {}
        # One question for a page of restore points.
        for start in range(0, len(rows), _VALUES):
            ids = [r.id for r in rows[start : start + _VALUES]]
            for image in self._session.scalars(
                select(ImageRow).where(ImageRow.point_id.in_(ids)).order_by(ImageRow.key)
            ):
                images.setdefault(image.point_id, []).append(_image(image))
        return [ListedPoint(_point(row, images.get(row.id, [])), row.files_indexed_at) for row in rows]


def _point(row: RestorePointRow, images: Sequence[ImageInfo]) -> RestorePoint:
    return RestorePoint(
        id=row.id,
        machine=row.machine_id,
        machine_name=row.machine_name,
        host=row.host,
        run=row.run,
        created_at=row.created_at,
        level=Level(row.level),
        consistency=Consistency(row.consistency),
        images=tuple(images),
        configuration=MachineConfiguration(kind="", text=""),
        reasons=_from_json(row.reasons),
        parent=row.parent,
        hypervisor=row.hypervisor,
        frozen_seconds=row.frozen_seconds,
        sealed_at=row.sealed_at,
    )


def _image(row: ImageRow) -> ImageInfo:
    return ImageInfo(
        key=row.key,
        size=row.size,
        index=row.index,
        digest=row.digest,
        transport=row.transport,
        source=row.source,
        bytes_read=row.bytes_read,
        bytes_new=row.bytes_new,
        bytes_stored=row.bytes_stored,
        change_id=row.change_id,
        reasons=_from_json(row.reasons),
        level=Level(row.level),
    )


def _image_row(point: RestorePointId, i: ImageInfo) -> ImageRow:
    return ImageRow(
        point_id=point,
        key=i.key,
        size=i.size,
        level=i.level.value,
        transport=i.transport,
        source=i.source,
        change_id=i.change_id,
        bytes_read=i.bytes_read,
        bytes_new=i.bytes_new,
        bytes_stored=i.bytes_stored,
        index=i.index,
        digest=i.digest,
        reasons=_to_json(i.reasons),
    )


def _to_json(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    return [{"code": r.code.value, "detail": r.detail} for r in reasons]


def _from_json(reasons: Sequence[dict[str, str]]) -> tuple[Reason, ...]:
    return tuple(Reason(ReasonCode(r["code"]), r["detail"]) for r in reasons)
