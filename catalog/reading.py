"""Versions out of the database, with their paths and the restore points that hold them."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from catalog.tables import OPEN, DirectoryRow, FileRow, NameRow, PathRow, RestorePointRow, VersionRow, VolumeRow
from catalog.values import FileVersion
from proxy.errors import FilesNotIndexed, RestorePointNotFound
from proxy.model import MachineId, RestorePointId

FACTS = ("type", "size", "mode", "uid", "gid", "mtime_ns", "ctime_ns", "inode", "link_target")
"""What is kept of a file, beside its path: columns of ``versions`` and attributes of ``FileVersion`` alike."""


class Reader:
    """Makes values of rows. Part of a unit of work; remembers nothing that a later write could change."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def found(self, query: Select[Any]) -> Sequence[FileVersion]:
        """The answers to a question that began as ``versions``."""
        return self.values(self._session.execute(query).all())

    def values(self, rows: Sequence[Row[Any]]) -> Sequence[FileVersion]:
        """Rows of ``versions`` as values, in their order."""
        spans = {machine: self.timeline(machine) for machine in {r.machine_id for r in rows}}
        return [spans[r.machine_id].value(r) for r in rows]

    def timeline(self, machine: MachineId) -> "Timeline":
        """The machine's indexed restore points."""
        p = RestorePointRow
        query = select(p.position, p.id).where(p.machine_id == machine, p.files_indexed_at.is_not(None))
        return Timeline(machine, [(row.position, row.id) for row in self._session.execute(query.order_by(p.position))])

    def volumes_of(self, *machines: MachineId) -> list[int]:
        """Rows of the machines' volumes."""
        return list(self._session.scalars(select(VolumeRow.id).where(VolumeRow.machine_id.in_(machines))))

    def point(self, point: RestorePointId) -> RestorePointRow:
        """Raises ``RestorePointNotFound``."""
        row = self._session.get(RestorePointRow, point)
        if row is None:
            raise RestorePointNotFound(point)
        return row

    def indexed(self, point: RestorePointId) -> RestorePointRow:
        """Raises ``FilesNotIndexed``, ``RestorePointNotFound``."""
        row = self.point(point)
        if row.files_indexed_at is None:
            raise FilesNotIndexed(point)
        return row


class Timeline:
    """A machine's indexed restore points in order of position."""

    def __init__(self, machine: MachineId, points: Sequence[tuple[int, RestorePointId]]) -> None:
        self.machine = machine
        self.positions = [position for position, _ in points]
        self.ids = [id_ for _, id_ in points]

    def between(self, first: int, until: int) -> Sequence[RestorePointId]:
        """The restore points in ``[first, until)``, oldest first."""
        return self.ids[bisect_left(self.positions, first) : bisect_left(self.positions, until)]

    def value(self, row: Any, prefix: str = "") -> FileVersion:
        """A row of ``versions`` as a value. ``prefix``: of the names of its columns."""
        first, until = getattr(row, f"{prefix}first"), getattr(row, f"{prefix}until")
        facts = {name: getattr(row, prefix + name) for name in FACTS}
        return FileVersion(
            machine=self.machine,
            volume=row.volume,
            path=row.directory.rstrip(b"/") + b"/" + row.name,
            first_point=self.ids[bisect_left(self.positions, first)],
            last_point=self.ids[bisect_left(self.positions, until) - 1],
            superseded=until != OPEN,
            **facts,
        )


def versions() -> Select[Any]:
    """Versions with their paths, to be narrowed down."""
    v = VersionRow
    columns: list[Any] = [VolumeRow.machine_id, VolumeRow.name.label("volume"), PathRow.path.label("directory")]
    columns += [NameRow.name, v.first, v.until, *(getattr(v, name) for name in FACTS)]
    query: Select[Any] = select(*columns).select_from(v).join(FileRow, FileRow.id == v.file_id)
    query = query.join(NameRow, NameRow.id == FileRow.name_id)
    query = query.join(DirectoryRow, DirectoryRow.id == FileRow.directory_id)
    query = query.join(PathRow, PathRow.id == DirectoryRow.path_id)
    return query.join(VolumeRow, VolumeRow.id == DirectoryRow.volume_id)
