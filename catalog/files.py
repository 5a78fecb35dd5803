"""The file index: which files a restore point holds, where a name is, which versions of a file there are."""

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Protocol

from sqlalchemy import Row, Select, delete, exists, select
from sqlalchemy.orm import Session, aliased

from catalog.history import History
from catalog.stage import IndexedFile, Stage
from catalog.tables import (
    DirectoryRow,
    FileRow,
    PointVolumeRow,
    RestorePointRow,
    VersionRow,
    VolumeRow,
)
from proxy.errors import FilesNotIndexed, RestorePointNotFound
from proxy.model import MachineId, RestorePointId

_WILD = re.compile(r"[*?\[]")


class IndexedVolume(Protocol):
    """What a walk must tell of a volume (``mounter.ports.Volume``)."""

    @property
    def id(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def mountpoint(self) -> str | None: ...
    @property
    def type(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def problem(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class ListedVolume:
    """A volume in one restore point. ``problem``: why its files are not, or not all, listed."""

    id: str
    device: str
    mountpoint: str | None
    type: str
    label: str
    size: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of one file. ``first_point`` and ``last_point``: the oldest and newest restore point that hold it;
    all indexed ones of the machine between them hold it too. ``path``: the guest's own, as bytes."""

    machine: MachineId
    volume: str
    path: bytes
    type: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    link_target: bytes | None
    first_point: RestorePointId
    last_point: RestorePointId

    @property
    def name(self) -> bytes:
        """Last part of the path."""
        return self.path.rsplit(b"/", 1)[-1]


class Files:
    """All SQL about files, but for the intervals' arithmetic in ``history.py``. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def index(
        self, point: RestorePointId, batches: Iterable[Sequence[IndexedFile]], volumes: Sequence[IndexedVolume] = ()
    ) -> int:
        """Record all files of a restore point that is in the catalog; returns how many. In any order of restore points,
        and again for one that was indexed: the last word counts. ``volumes`` is looked at after the last batch.

        Holds the transaction for as long as the batches take; ``Catalog.index`` does not. Raises
        ``RestorePointNotFound``, and what the batches raise.
        """
        stage = Stage(self._session.connection())
        count = sum(stage.add(batch) for batch in batches)
        self.index_staged(point, stage, volumes)
        return count

    def index_staged(self, point: RestorePointId, stage: Stage, volumes: Sequence[IndexedVolume] = ()) -> None:
        """As ``index``, for files that were collected on this transaction's connection. Raises ``RestorePointNotFound``."""
        row = self._point(point)
        if row.files_indexed_at is not None:
            self.forget(point)
        stage.resolve(row.machine_id)
        for volume in volumes:
            self._session.add(_point_volume(point, stage.volume_id(row.machine_id, volume.id), volume))
        self._history(row.machine_id).insert(row.position, self._next_indexed(row))
        row.files_indexed_at = datetime.now(UTC)
        self._session.flush()
        stage.clear()

    def forget(self, point: RestorePointId) -> None:
        """Take a restore point out of the index, as if it had never been indexed."""
        row = self._point(point)
        if row.files_indexed_at is None:
            return
        self._history(row.machine_id).remove(row.position, self._next_indexed(row))
        self._session.execute(delete(PointVolumeRow).where(PointVolumeRow.point_id == point))
        row.files_indexed_at = None
        self._session.flush()

    def volumes(self, point: RestorePointId) -> Sequence[ListedVolume]:
        """The volumes of an indexed restore point. Raises ``FilesNotIndexed``."""
        row = self._indexed(point)
        query = select(PointVolumeRow, VolumeRow.name).join(VolumeRow, VolumeRow.id == PointVolumeRow.volume_id)
        query = query.where(PointVolumeRow.point_id == row.id).order_by(PointVolumeRow.device)
        return [
            ListedVolume(name, v.device, v.mountpoint, v.type, v.label, v.size, v.problem)
            for v, name in self._session.execute(query)
        ]

    def list_directory(self, point: RestorePointId, path: bytes) -> Sequence[FileVersion]:
        """What a directory holds in a restore point, by name; empty when there is no such directory.

        Where the guest mounts one volume over a directory of another, the upper one is what it sees.
        """
        row = self._indexed(point)
        wanted = path.rstrip(b"/") or b"/"
        query = _versions().where(
            VolumeRow.machine_id == row.machine_id,
            DirectoryRow.path == wanted,
            VersionRow.first <= row.position,
            VersionRow.until > row.position,
        )
        found = self._found(query.order_by(FileRow.name))
        top = _topmost(self.volumes(point), wanted)
        return [f for f in found if top is None or f.volume == top]

    def find(
        self, pattern: str, *, machine: MachineId | None = None, point: RestorePointId | None = None, limit: int = 1000
    ) -> Sequence[FileVersion]:
        """Files whose path contains ``pattern``, or matches it as a glob when it has ``*``, ``?`` or ``[``; without
        regard to case. A glob without ``/`` is for the name alone. Each file once, in its newest version, or as it is
        in ``point``. By path; at most ``limit``.
        """
        query = _versions().where(FileRow.search.like(_like(pattern), escape="\\"))
        if point is not None:
            row = self._indexed(point)
            query = query.where(VersionRow.first <= row.position, VersionRow.until > row.position)
            query = query.where(VolumeRow.machine_id == row.machine_id)
        else:
            later = aliased(VersionRow)
            query = query.where(~exists().where(later.file_id == VersionRow.file_id, later.first > VersionRow.first))
        if machine is not None:
            query = query.where(VolumeRow.machine_id == machine)
        matches = _matcher(pattern)
        found: list[Row[Any]] = []
        for candidate in self._session.execute(query.order_by(FileRow.search, VersionRow.id)):
            if len(found) == limit:
                break
            if matches(candidate.search):
                found.append(candidate)
        return self._with_points(found)

    def versions(self, machine: MachineId, path: bytes) -> Sequence[FileVersion]:
        """All versions of one file, newest first."""
        directory, _, name = path.rpartition(b"/")
        query = _versions().where(
            VolumeRow.machine_id == machine, DirectoryRow.path == (directory or b"/"), FileRow.name == name
        )
        return self._found(query.order_by(VersionRow.first.desc(), VersionRow.id))

    def _found(self, query: Select[Any]) -> Sequence[FileVersion]:
        return self._with_points(self._session.execute(query).all())

    def _with_points(self, rows: Sequence[Row[Any]]) -> Sequence[FileVersion]:
        spans = {machine: self._sequence(machine) for machine in {r.machine_id for r in rows}}
        return [_version(r, *spans[r.machine_id].ends(r.first, r.until)) for r in rows]

    def _sequence(self, machine: MachineId) -> "_Sequence":
        p = RestorePointRow
        query = select(p.position, p.id).where(p.machine_id == machine, p.files_indexed_at.is_not(None))
        return _Sequence(self._session.execute(query.order_by(p.position)).all())

    def _history(self, machine: MachineId) -> History:
        ids = self._session.scalars(select(VolumeRow.id).where(VolumeRow.machine_id == machine)).all()
        return History(self._session, list(ids))

    def _next_indexed(self, row: RestorePointRow) -> int | None:
        p = RestorePointRow
        query = select(p.position).where(
            p.machine_id == row.machine_id, p.files_indexed_at.is_not(None), p.position > row.position
        )
        return self._session.scalars(query.order_by(p.position).limit(1)).first()

    def _point(self, point: RestorePointId) -> RestorePointRow:
        row = self._session.get(RestorePointRow, point)
        if row is None:
            raise RestorePointNotFound(point)
        return row

    def _indexed(self, point: RestorePointId) -> RestorePointRow:
        row = self._point(point)
        if row.files_indexed_at is None:
            raise FilesNotIndexed(point)
        return row


class _Sequence:
    """A machine's indexed restore points in order of position."""

    def __init__(self, points: Sequence[tuple[int, RestorePointId]]) -> None:
        self._positions = [position for position, _ in points]
        self._ids = [id_ for _, id_ in points]

    def ends(self, first: int, until: int) -> tuple[RestorePointId, RestorePointId]:
        """The first and the last restore point in ``[first, until)``."""
        return self._ids[bisect_left(self._positions, first)], self._ids[bisect_left(self._positions, until) - 1]


def _versions() -> Select[Any]:
    """Versions with their paths, to be narrowed down."""
    v = VersionRow
    columns: list[Any] = [VolumeRow.machine_id, VolumeRow.name.label("volume"), DirectoryRow.path.label("directory")]
    columns += [FileRow.name, FileRow.search, v.first, v.until, v.type, v.size, v.mode, v.uid, v.gid]
    columns += [v.mtime_ns, v.ctime_ns, v.inode, v.link_target]
    query: Select[Any] = select(*columns).join(FileRow, FileRow.id == v.file_id)
    query = query.join(DirectoryRow, DirectoryRow.id == FileRow.directory_id)
    return query.join(VolumeRow, VolumeRow.id == DirectoryRow.volume_id)


def _version(r: Row[Any], first: RestorePointId, last: RestorePointId) -> FileVersion:
    return FileVersion(
        machine=r.machine_id,
        volume=r.volume,
        path=r.directory.rstrip(b"/") + b"/" + r.name,
        type=r.type,
        size=r.size,
        mode=r.mode,
        uid=r.uid,
        gid=r.gid,
        mtime_ns=r.mtime_ns,
        ctime_ns=r.ctime_ns,
        inode=r.inode,
        link_target=r.link_target,
        first_point=first,
        last_point=last,
    )


def _point_volume(point: RestorePointId, volume_id: int, v: IndexedVolume) -> PointVolumeRow:
    return PointVolumeRow(
        point_id=point,
        volume_id=volume_id,
        device=v.device,
        mountpoint=v.mountpoint,
        type=v.type,
        label=v.label,
        size=v.size,
        problem=v.problem,
    )


def _topmost(volumes: Sequence[ListedVolume], path: bytes) -> str | None:
    """Id of the volume that the guest sees at a path: that with the longest mount point; ``None`` when none is known."""
    best, best_length = None, -1
    for v in volumes:
        prefix = os.fsencode(f"{v.device}:" if v.mountpoint is None else v.mountpoint.rstrip("/"))
        if (path == prefix or path.startswith(prefix + b"/")) and len(prefix) > best_length:
            best, best_length = v.id, len(prefix)
    return best


def _like(pattern: str) -> str:
    """A LIKE pattern (escape character: backslash) that finds at least all that the pattern means."""
    folded = pattern.casefold()
    if not _WILD.search(folded):
        return f"%{_escaped(folded)}%"
    wild = {"*": "%", "?": "_"}
    parts = re.split(r"(\*|\?|\[[^\]]*\])", folded)
    text = "".join(
        wild.get(part, "_" if part.startswith("[") and part.endswith("]") else _escaped(part)) for part in parts
    )
    return text if "/" in folded else f"%/{text}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a searchable path is really meant: LIKE knows no character classes and lets ``*`` cross ``/``."""
    folded = pattern.casefold()
    if not _WILD.search(folded):
        return lambda path: folded in path
    if "/" in folded:
        return lambda path: fnmatchcase(path, folded)
    return lambda path: fnmatchcase(path.rpartition("/")[2], folded)
