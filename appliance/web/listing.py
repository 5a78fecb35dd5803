"""A directory of a restore point, page by page: as the catalog has it, or as the opened restore point does."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from api.paging import decode, encode
from api.schemas.common import Reason
from api.schemas.files import Facts, Listing, NetworkVolume, Source, Volumes
from api.schemas.guest_names import bytes_of, id_of, text_of
from appliance.web.file_facts import facts_of, root_entry, root_of, volume_of
from catalog.values import FileVersion, ListedVolume
from mounter.ports import FileType, Volume
from mounter.restore.selection import joined
from mounter.session import MountSession
from proxy.errors import ConfigurationError, GuestFileNotFound
from proxy.model import RestorePoint, RestorePointId

if TYPE_CHECKING:
    from catalog.unit_of_work import Unit


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page of a directory."""

    path: bytes
    types: Sequence[FileType]
    limit: int
    after: bytes | None


def page_of(path: bytes, types: Sequence[FileType], limit: int, cursor: str | None) -> Wanted:
    """Raises ``ConfigurationError`` for a cursor that no listing gave."""
    return Wanted(path, types, limit, None if cursor is None else _name_in(cursor))


def of_catalog(unit: "Unit", point: RestorePoint, wanted: Wanted) -> Listing:
    """As it was recorded. Raises ``FilesNotIndexed``, ``GuestFileNotFound``."""
    volumes = unit.files.volumes(point.id)
    types = [each.value for each in wanted.types]
    found = unit.files.list_directory(point.id, wanted.path, types=types, after=wanted.after, limit=wanted.limit + 1)
    if not found and wanted.after is None:
        roots = _roots(volumes, wanted)
        if roots is not None:
            return _listing(point, wanted, roots, volumes, Source.CATALOG)
        _check_directory(unit.files.entry(point.id, wanted.path), volumes, wanted.path)
    items = [facts_of(each) for each in found]
    after = found[wanted.limit - 1].name if len(found) > wanted.limit else None
    return _listing(point, wanted, items[: wanted.limit], volumes, Source.CATALOG, after=after)


def _check_directory(entry: FileVersion | None, volumes: Sequence[ListedVolume], path: bytes) -> None:
    """Nothing was found in it: an empty directory, or none. Raises ``GuestFileNotFound``."""
    if any(root_of(volume) == path for volume in volumes):
        return
    if entry is None:
        raise GuestFileNotFound(text_of(path))
    if entry.type != FileType.DIRECTORY:
        raise GuestFileNotFound(text_of(path), f"is a {entry.type}, not a directory")


def of_session(session: MountSession, point: RestorePoint, wanted: Wanted, name: str | None) -> Listing:
    """As it is there. Raises ``GuestFileNotFound``, ``MountFailed``."""
    volumes = session.volumes()
    roots = _roots(volumes, wanted)
    if roots is not None:
        return _listing(point, wanted, roots, volumes, Source.SESSION, session=name)
    entries = session.list_directory(wanted.path)
    if wanted.types:
        entries = [entry for entry in entries if entry.type in wanted.types]
    begin = 0 if wanted.after is None else bisect_right(entries, wanted.after, key=lambda entry: entry.name)
    page = entries[begin : begin + wanted.limit]
    after = page[-1].name if page and begin + len(page) < len(entries) else None
    items = [facts_of(entry, joined(wanted.path, entry.name)) for entry in page]
    return _listing(point, wanted, items, volumes, Source.SESSION, after=after, session=name)


def _roots(volumes: Sequence[Volume | ListedVolume], wanted: Wanted) -> list[Facts] | None:
    """What ``/`` holds of a machine that has no such root: drives, and volumes that are mounted nowhere."""
    if wanted.path != b"/" or not volumes or any(root_of(volume) == b"/" for volume in volumes):
        return None
    readable = sorted((v for v in volumes if v.problem is None), key=root_of)
    unique = {root_of(volume): volume for volume in readable}
    return [root_entry(volume) for volume in unique.values()]


def _listing(
    point: RestorePoint,
    wanted: Wanted,
    items: list[Facts],
    volumes: Sequence[Volume | ListedVolume],
    source: Source,
    *,
    after: bytes | None = None,
    session: str | None = None,
) -> Listing:
    return Listing(
        items=items,
        next=None if after is None else encode(id_of(after)),
        point=point.id,
        path=text_of(wanted.path),
        path_id=id_of(wanted.path),
        source=source,
        session=session,
        unread=[volume_of(volume) for volume in volumes if volume.problem is not None],
    )


def recorded_volumes(unit: "Unit", point: RestorePointId) -> Volumes:
    """As they were recorded. Raises ``FilesNotIndexed``."""
    return Volumes(
        point=point,
        source=Source.CATALOG,
        volumes=[volume_of(volume) for volume in unit.files.volumes(point)],
        network_volumes=[
            NetworkVolume(kind=v.kind, source=v.source, mountpoint=v.mountpoint, told_by=v.told_by)
            for v in unit.files.network_volumes(point)
        ],
        read_by=Reason.all_of(unit.files.index_reasons(point)),
    )


def _name_in(cursor: str) -> bytes:
    (name,) = decode(cursor, 1)
    return bytes_of(name) if isinstance(name, str) else no_cursor()


def no_cursor() -> NoReturn:
    """Raises ``ConfigurationError``."""
    raise ConfigurationError("cursor", "not one that this list gave", hint="take 'next' of the page before as it is")
