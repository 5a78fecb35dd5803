"""Files inside restore points for the API: from the catalog where they are recorded, else from the opened restore point.

Each method checks what the caller reaches, then records the access, then reads: in this order, everywhere.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from api.auth.roles import Caller
from api.paging import decode, encode
from api.ports.files import Download, Span
from api.schemas.common import Reason
from api.schemas.files import (
    ChangeSums,
    Comparison,
    DownloadLink,
    DownloadRequest,
    FileGrowth,
    FileRestoreRequest,
    FileVersionFacts,
    FileVersions,
    FoundFiles,
    GrownDirectory,
    HoldingPoint,
    Listing,
    LostFiles,
    PointTotal,
    SearchQuery,
    Source,
    Volumes,
)
from api.schemas.guest_names import id_of, text_of
from appliance.auditing import audit
from appliance.web import lost
from appliance.web.downloads import Downloads
from appliance.web.file_facts import change_of, found_file, volume_of
from appliance.web.file_tasks import ask_restore
from appliance.web.listing import no_cursor, of_catalog, of_session, page_of, recorded_volumes
from appliance.web.mounts import WebMounts
from appliance.web.reaching import machine_in_reach, machines_in_reach, point_in_reach
from appliance.wiring import Services
from catalog.search import Query
from mounter.ports import FileType
from proxy.errors import FilesNotIndexed, GuestFileNotFound, RestorePointNotFound
from proxy.model import MachineId, RestorePointId

if TYPE_CHECKING:
    from catalog.unit_of_work import Unit

COUNTED_FOR = 30.0
"""Seconds for which the number of restore points without recorded files is told again: all of them are looked at for it."""

# What nanoseconds in 64 bits can say; files of other years are found without these limits.
_EARLIEST = datetime(1678, 1, 1, tzinfo=UTC)
_LATEST = datetime(2262, 1, 1, tzinfo=UTC)


class WebFiles:
    """``api.ports.files.Files``."""

    def __init__(self, services: Services, mounts: WebMounts, downloads: Downloads | None = None) -> None:
        self._services = services
        self._mounts = mounts
        self.downloads = downloads or Downloads(services, mounts)
        self._counted = (0, -COUNTED_FOR - 1)  # how many, and when by the monotonic clock

    def listing(
        self,
        caller: Caller,
        point: str,
        path: bytes,
        *,
        session: str | None = None,
        types: Sequence[FileType] = (),
        limit: int = 100,
        cursor: str | None = None,
    ) -> Listing:
        """See the port."""
        found, _ = point_in_reach(self._services, caller, point)
        wanted = page_of(path, types, limit, cursor)
        audit(self._services, "browse", found, who=caller.who, path=text_of(path))
        if session is None:
            with self._recorded(found.id) as unit:
                if unit is not None:
                    return of_catalog(unit, found, wanted)
        with self._mounts.use(caller, found, session) as opened:
            return of_session(opened, found, wanted, session)

    def volumes(self, caller: Caller, point: str, *, session: str | None = None) -> Volumes:
        """See the port."""
        found, _ = point_in_reach(self._services, caller, point)
        audit(self._services, "browse", found, who=caller.who, volumes=True)
        if session is None:
            with self._recorded(found.id) as unit:
                if unit is not None:
                    return recorded_volumes(unit, found.id)
        with self._mounts.use(caller, found, session) as opened:
            return Volumes(
                point=found.id,
                source=Source.SESSION,
                volumes=[volume_of(volume) for volume in opened.volumes()],
                read_by=[] if opened.opened_by is None else [Reason.of(opened.opened_by)],
            )

    def search(self, caller: Caller, query: SearchQuery, *, limit: int = 100, cursor: str | None = None) -> FoundFiles:
        """See the port."""
        point = None if query.point is None else point_in_reach(self._services, caller, query.point)[0]
        with self._services.catalog.transaction(write=False) as unit:
            machines = machines_in_reach(unit, caller, query.machines)
        about = next(iter(machines)) if machines is not None and len(machines) == 1 else None
        audit(self._services, "search", point, who=caller.who, about=about, pattern=query.q)
        if machines is not None and not machines:
            return FoundFiles(items=[], complete=True, unsearched=0)
        with _searching(query.point), self._services.catalog.transaction(write=False) as unit:
            found = unit.files.search(_query(query, machines, limit, cursor))
            called = _Names(unit)
            return FoundFiles(
                items=[found_file(version, called.of(version.machine)) for version in found.files],
                next=found.after,
                complete=found.complete,
                unsearched=0 if point is not None else self._unsearched(unit, machines),
            )

    def versions(self, caller: Caller, machine: str, path: bytes) -> FileVersions:
        """See the port."""
        identity, called = self._machine(caller, machine, "search", path=text_of(path))
        with self._services.catalog.transaction(write=False) as unit:
            found = unit.files.versions(identity, path)
            if not found:
                why = "not in any restore point whose files are recorded"
                raise GuestFileNotFound(text_of(path), why)
            held = [unit.files.holding(version) for version in found]
            taken = _taken(unit, {point for points in held for point in points})
            unsearched = unit.files.owners.not_indexed([identity])
        return FileVersions(
            machine=identity,
            machine_name=called,
            path=text_of(path),
            path_id=id_of(path),
            versions=[
                FileVersionFacts(
                    **found_file(version, called).model_dump(),
                    held_by=[HoldingPoint(id=point, created_at=taken[point]) for point in points if point in taken],
                )
                for version, points in zip(found, held, strict=True)
            ],
            unsearched=unsearched,
        )

    def compare(
        self, caller: Caller, before: str, after: str, path: bytes, *, limit: int = 100, cursor: str | None = None
    ) -> Comparison:
        """See the port."""
        first, _ = point_in_reach(self._services, caller, before)
        second, called = point_in_reach(self._services, caller, after)
        audit(self._services, "browse", second, who=caller.who, since=first.id, path=text_of(path))
        begin = 0 if cursor is None else _number_in(cursor)
        with self._catalogued(first.id, second.id) as unit:
            changes = list(islice(unit.files.changes.between(first.id, second.id, path), begin, begin + limit + 1))
            sums = unit.files.changes.sums(first.id, second.id, path)
        return Comparison(
            items=[change_of(change, called) for change in changes[:limit]],
            next=encode(begin + limit) if len(changes) > limit else None,
            before=first.id,
            after=second.id,
            path=text_of(path),
            path_id=id_of(path),
            sums=ChangeSums(
                added=sums.added,
                removed=sums.removed,
                changed=sums.changed,
                bytes_added=sums.bytes_added,
                bytes_removed=sums.bytes_removed,
                bytes_changed=sums.bytes_changed,
                growth=sums.growth,
            ),
        )

    def growth(
        self, caller: Caller, machine: str, path: bytes, *, first: str | None, last: str | None, limit: int = 20
    ) -> FileGrowth:
        """See the port."""
        identity, called = self._machine(
            caller, machine, "browse", growth=text_of(path), since=first or "", to=last or ""
        )
        for end in (first, last):
            if end is not None and point_in_reach(self._services, caller, end)[0].machine != identity:
                raise RestorePointNotFound(f"{end} of {called}")
        with self._catalogued(*(end for end in (first, last) if end is not None)) as unit:
            totals = unit.files.changes.over_time(identity, path)
            if not totals:
                raise FilesNotIndexed(f"of {called}")
            begin, end = first or totals[0].point, last or totals[-1].point
            most = unit.files.changes.growth(begin, end, path, limit)
            taken = _taken(unit, {total.point for total in totals})
        return FileGrowth(
            machine=identity,
            machine_name=called,
            first=begin,
            last=end,
            totals=[PointTotal(point=t.point, created_at=taken[t.point], files=t.files, bytes=t.bytes) for t in totals],
            directories=[
                GrownDirectory(path=text_of(d.path), path_id=id_of(d.path), growth=d.growth, changes=d.changes)
                for d in most.directories
            ],
            files=[change_of(change, called) for change in most.files],
        )

    def lost(
        self, caller: Caller, machine: str, name: str, *, when: datetime | None = None, limit: int = 20
    ) -> LostFiles:
        """See the port."""
        identity, called = self._machine(caller, machine, "search", pattern=name, lost=True)
        with self._services.catalog.transaction(write=False) as unit:
            return lost.candidates(unit, identity, called, name, when=when, limit=limit)

    def download(self, caller: Caller, request: DownloadRequest, span: Span | None = None) -> Download:
        """See the port."""
        return self.downloads.download(caller, request, span)

    def offer(self, caller: Caller, request: DownloadRequest) -> DownloadLink:
        """See the port."""
        return self.downloads.offer(caller, request)

    def redeem(self, caller: Caller, token: str) -> Download:
        """See the port."""
        return self.downloads.redeem(caller, token)

    def restore(self, caller: Caller, point: str, request: FileRestoreRequest, *, key: str | None = None) -> str:
        """See the port."""
        return ask_restore(self._services, caller, point, request, key=key or "")

    def _machine(self, caller: Caller, name: str, action: str, **detail: object) -> tuple[MachineId, str]:
        """A machine within reach, and its name, once the access is recorded."""
        with self._services.catalog.transaction(write=False) as unit:
            identity, called = machine_in_reach(unit, caller, name)
        audit(self._services, action, None, who=caller.who, about=identity, **detail)
        return identity, called

    @contextmanager
    def _recorded(self, point: RestorePointId) -> Iterator["Unit | None"]:
        """A reading unit, if the catalog has the files of a restore point."""
        with self._services.catalog.transaction(write=False) as unit:
            listed = unit.restore_points.several([point])
            yield unit if listed and listed[0].files_indexed_at is not None else None

    @contextmanager
    def _catalogued(self, *points: RestorePointId) -> Iterator["Unit"]:
        """A reading unit; what only the repository knows is not indexed, rather than not there."""
        with _searching(" ".join(points)), self._services.catalog.transaction(write=False) as unit:
            yield unit

    def _unsearched(self, unit: "Unit", machines: frozenset[MachineId] | None) -> int:
        """Restore points whose files are not recorded."""
        if machines is not None:
            return unit.files.owners.not_indexed(machines)
        count, at = self._counted
        if time.monotonic() - at > COUNTED_FOR:
            count = unit.files.owners.not_indexed()
            self._counted = count, time.monotonic()
        return count


class _Names:
    """Names of machines, each asked for once."""

    def __init__(self, unit: "Unit") -> None:
        self._unit = unit
        self._known: dict[MachineId, str] = {}

    def of(self, machine: MachineId) -> str:
        """The identity where the catalog has no name."""
        if machine not in self._known:
            self._known[machine] = self._unit.files.owners.name(machine) or machine
        return self._known[machine]


@contextmanager
def _searching(point: str | None) -> Iterator[None]:
    """The repository has the point, so it is the catalog that does not."""
    try:
        yield
    except RestorePointNotFound:
        raise FilesNotIndexed(point or "") from None


def _taken(unit: "Unit", points: Collection[RestorePointId]) -> Mapping[RestorePointId, datetime]:
    return {each.point.id: each.point.created_at for each in unit.restore_points.several(sorted(points))}


def _query(query: SearchQuery, machines: frozenset[MachineId] | None, limit: int, cursor: str | None) -> Query:
    return Query(
        query.q,
        query.kind,
        machines=machines or frozenset(),
        point=query.point,
        min_size=query.min_size,
        max_size=query.max_size,
        modified_since=None if query.since is None else min(max(query.since, _EARLIEST), _LATEST),
        modified_until=None if query.until is None else min(max(query.until, _EARLIEST), _LATEST),
        types=frozenset(each.value for each in query.types),
        deleted=query.deleted,
        all_versions=query.all_versions,
        limit=limit,
        after=cursor,
    )


def _number_in(cursor: str) -> int:
    (number,) = decode(cursor, 1)
    return number if isinstance(number, int) and 0 < number < 1 << 40 else no_cursor()
