"""The file index: which files a restore point holds, where a name is, which versions of a file there are."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import Select, and_, delete, func, select, text
from sqlalchemy.orm import Session

from catalog.carry import Carry, check_volumes, stage_gone
from catalog.changes import Changes
from catalog.history import History
from catalog.owners import Owners
from catalog.reading import Reader, versions
from catalog.search import Found, Query, Search
from catalog.stage import Stage
from catalog.tables import NameRow, NetworkVolumeRow, PathRow, PointVolumeRow, RestorePointRow, VersionRow, VolumeRow
from catalog.text import digest, split
from catalog.values import (
    FileVersion,
    IndexedFile,
    IndexedNetworkVolume,
    IndexedVolume,
    ListedNetworkVolume,
    ListedVolume,
    LookedInto,
)
from proxy.errors import CarryRefused
from proxy.model import MachineId, Reason, ReasonCode, RestorePointId

# Names one of PostgreSQL's advisory locks, of which a database has one set.
_INDEXING = 0x4C46_0001


class Files:
    """All SQL about files, but for the intervals' arithmetic in ``history.py``, searches and changes, which it leads to.
    Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._reader = Reader(session)

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

    def index_staged(
        self,
        point: RestorePointId,
        stage: Stage,
        volumes: Sequence[IndexedVolume] = (),
        *,
        carry: Carry | None = None,
        network: Sequence[IndexedNetworkVolume] = (),
        reasons: Sequence[Reason] = (),
    ) -> None:
        """As ``Catalog.index``, for files that were collected on this transaction's connection. Raises
        ``RestorePointNotFound``, ``CarryRefused``."""
        self._one_at_a_time()
        row = self._reader.point(point)
        if carry is not None:
            self.check_carry(point, carry, volumes)
        if row.files_indexed_at is not None:
            self.forget(point)
        stage.resolve(row.machine_id)
        ids = {volume.id: stage.volume_id(row.machine_id, volume.id) for volume in volumes}
        self._session.add_all(_point_volume(point, ids[volume.id], volume) for volume in volumes)
        self._session.add_all(_network_volume(point, number, each) for number, each in enumerate(network))
        carried = {} if carry is None else {name: ids[name] for name in carry.volumes}
        if carry is not None:
            stage_gone(self._session, carried, carry.gone())
        mine = self._reader.volumes_of(row.machine_id)
        History(self._session, mine).insert(row.position, self._next_indexed(row), set(carried.values()))
        row.files_indexed_at = datetime.now(UTC)
        row.index_reasons = [{"code": r.code.value, "detail": r.detail} for r in reasons]
        self._session.flush()
        stage.clear()

    def forget(self, point: RestorePointId) -> None:
        """Take a restore point out of the index, as if it had never been indexed."""
        self._one_at_a_time()
        row = self._reader.point(point)
        if row.files_indexed_at is None:
            return
        History(self._session, self._reader.volumes_of(row.machine_id)).remove(row.position, self._next_indexed(row))
        for told in (PointVolumeRow, NetworkVolumeRow):
            self._session.execute(delete(told).where(told.point_id == point))
        row.files_indexed_at = None
        row.index_reasons = []
        self._session.flush()

    def newest_indexed(self, machine: MachineId) -> RestorePointId | None:
        """The machine's newest indexed restore point: the only one that files can be carried from."""
        p = RestorePointRow
        query = select(p.id).where(p.machine_id == machine, p.files_indexed_at.is_not(None))
        return self._session.scalar(query.order_by(p.position.desc()).limit(1))

    def check_carry(self, point: RestorePointId, carry: Carry, now: Sequence[IndexedVolume] | None = None) -> None:
        """Whether files can be carried; ``now``: the volumes as the walk found them, when it has ended. Raises
        ``CarryRefused``, ``RestorePointNotFound``."""
        row = self._reader.point(point)
        if self.newest_indexed(row.machine_id) != carry.base:
            raise CarryRefused(point, carry.base, "that is not the newest indexed restore point of the machine")
        if self._reader.point(carry.base).position >= row.position:
            raise CarryRefused(point, carry.base, "that is not an older one")
        check_volumes(point, carry, self.volumes(carry.base), now)

    def volumes(self, point: RestorePointId) -> Sequence[ListedVolume]:
        """The volumes of an indexed restore point. Raises ``FilesNotIndexed``."""
        row = self._reader.indexed(point)
        query = select(PointVolumeRow, VolumeRow.name).join(VolumeRow, VolumeRow.id == PointVolumeRow.volume_id)
        query = query.where(PointVolumeRow.point_id == row.id).order_by(PointVolumeRow.device)
        return [
            ListedVolume(name, v.device, v.mountpoint, v.type, v.label, v.size, v.problem, v.state, v.state_detail)
            for v, name in self._session.execute(query)
        ]

    def network_volumes(self, point: RestorePointId) -> Sequence[ListedNetworkVolume]:
        """What the guest used over its network, and the restore point does not hold. Raises ``FilesNotIndexed``."""
        n = NetworkVolumeRow
        query = select(n).where(n.point_id == self._reader.indexed(point).id).order_by(n.number)
        return [ListedNetworkVolume(v.kind, v.source, v.mountpoint, v.told_by) for v in self._session.scalars(query)]

    def looked_into(self) -> Mapping[MachineId, LookedInto]:
        """Of each machine that has an indexed restore point what was seen in the newest of them."""
        p, n = RestorePointRow, NetworkVolumeRow
        last = select(p.machine_id, func.max(p.position).label("at")).where(p.files_indexed_at.is_not(None))
        newest = last.group_by(p.machine_id).subquery()
        same = and_(newest.c.machine_id == p.machine_id, newest.c.at == p.position)
        points = self._session.execute(select(p.id, p.machine_id, p.index_reasons).join(newest, same)).all()
        volumes: dict[RestorePointId, list[ListedNetworkVolume]] = {}
        query = select(n).join(p, p.id == n.point_id).join(newest, same).order_by(n.point_id, n.number)
        for v in self._session.scalars(query):
            volumes.setdefault(v.point_id, []).append(ListedNetworkVolume(v.kind, v.source, v.mountpoint, v.told_by))
        return {
            row.machine_id: LookedInto(
                row.id,
                tuple(Reason(ReasonCode(r["code"]), r["detail"]) for r in row.index_reasons),
                tuple(volumes.get(row.id, ())),
            )
            for row in points
        }

    def index_reasons(self, point: RestorePointId) -> Sequence[Reason]:
        """Who read the files of an indexed restore point, and how much of it. Raises ``FilesNotIndexed``."""
        told = self._reader.indexed(point).index_reasons
        return [Reason(ReasonCode(r["code"]), r["detail"]) for r in told]

    def list_directory(
        self,
        point: RestorePointId,
        path: bytes,
        *,
        types: Collection[str] = (),
        after: bytes | None = None,
        limit: int | None = None,
    ) -> Sequence[FileVersion]:
        """What a directory holds in a restore point, by name; empty when there is no such directory. ``types``: only such
        entries; ``after``: names behind this one; ``limit``: at most so many.

        Where the guest mounts one volume over a directory of another, the upper one is what it sees.
        """
        wanted = path.rstrip(b"/") or b"/"
        query = self._held(point, wanted).order_by(NameRow.name).limit(limit)
        if types:
            query = query.where(VersionRow.type.in_(sorted(types)))
        if after is not None:
            query = query.where(NameRow.name > after)
        return self._reader.found(query)

    def entry(self, point: RestorePointId, path: bytes) -> FileVersion | None:
        """One file or directory of a restore point by its path; ``None`` for what is not there, and for the roots of volumes,
        which are in no directory. Raises ``FilesNotIndexed``, ``RestorePointNotFound``."""
        directory, name = split(path.rstrip(b"/") or b"/")
        found = self._reader.found(self._held(point, directory).where(NameRow.name == name).limit(1))
        return found[0] if found else None

    def search(self, query: Query) -> Found:
        """One page of what a query finds. Raises ``FilesNotIndexed``, ``RestorePointNotFound``, ``SearchRefused``."""
        return Search(self._session, query).run()

    def versions(self, machine: MachineId, path: bytes) -> Sequence[FileVersion]:
        """All versions of one file, newest first."""
        directory, name = split(path)
        query = versions().where(
            VolumeRow.machine_id == machine, PathRow.digest == digest(directory), NameRow.name == name
        )
        return self._reader.found(query.order_by(VersionRow.first.desc(), VersionRow.id))

    def holding(self, version: FileVersion) -> Sequence[RestorePointId]:
        """The restore points that still hold a version, oldest first; those that were deleted since are not among them."""
        timeline = self._reader.timeline(version.machine)
        ends = {p: i for i, p in enumerate(timeline.ids)}
        first, last = ends.get(version.first_point), ends.get(version.last_point)
        if first is not None and last is not None:
            return list(islice(timeline.ids, first, last + 1))
        return next((self.holding(v) for v in self._same(version)), ())

    @property
    def changes(self) -> Changes:
        """What differs between restore points."""
        return Changes(self._session)

    @property
    def owners(self) -> Owners:
        """The machines whose files these are."""
        return Owners(self._session)

    def _held(self, point: RestorePointId, directory: bytes) -> Select[Any]:
        """Versions in a directory of an indexed restore point, of the volume that the guest has there."""
        row = self._reader.indexed(point)
        query = versions().where(
            VolumeRow.machine_id == row.machine_id,
            PathRow.digest == digest(directory),
            VersionRow.first <= row.position,
            VersionRow.until > row.position,
        )
        top = _topmost(self.volumes(point), directory)
        return query if top is None else query.where(VolumeRow.name == top)

    def _same(self, version: FileVersion) -> Sequence[FileVersion]:
        """The rows that are this version now: restore points at its ends were deleted."""
        end = dict.fromkeys(("first_point", "last_point", "superseded"))
        wanted = {**asdict(version), **end}
        return [v for v in self.versions(version.machine, version.path) if {**asdict(v), **end} == wanted]

    def _next_indexed(self, row: RestorePointRow) -> int | None:
        p = RestorePointRow
        query = select(p.position).where(
            p.machine_id == row.machine_id, p.files_indexed_at.is_not(None), p.position > row.position
        )
        return self._session.scalars(query.order_by(p.position).limit(1)).first()

    def _one_at_a_time(self) -> None:
        """Two that make the same names at once would wait for each other; SQLite has one writer anyway."""
        if self._session.get_bind().dialect.name == "postgresql":
            self._session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _INDEXING})


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
        state=str(v.state),
        state_detail=v.state_detail,
    )


def _network_volume(point: RestorePointId, number: int, v: IndexedNetworkVolume) -> NetworkVolumeRow:
    return NetworkVolumeRow(
        point_id=point, number=number, kind=v.kind, source=v.source, mountpoint=v.mountpoint, told_by=v.told_by
    )


def _topmost(volumes: Sequence[ListedVolume], path: bytes) -> str | None:
    """Id of the volume that the guest sees at a path: that with the longest mount point; ``None`` when none is known."""
    best, best_length = None, -1
    for v in volumes:
        prefix = os.fsencode(f"{v.device}:" if v.mountpoint is None else v.mountpoint.rstrip("/"))
        if (path == prefix or path.startswith(prefix + b"/")) and len(prefix) > best_length:
            best, best_length = v.id, len(prefix)
    return best
