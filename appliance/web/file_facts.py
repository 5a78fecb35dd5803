"""Files and volumes of catalog and mounter as the API tells them."""

from api.schemas.files import ChangeKind as Kind
from api.schemas.files import Facts, FileChange, FoundFile, GuestVolume
from api.schemas.guest_names import id_of, moment_of, text_of
from catalog.changes import Change
from catalog.values import FileVersion, ListedVolume
from mounter.ports import FileEntry, FileType, Volume


def facts_of(entry: FileEntry | FileVersion, path: bytes | None = None) -> Facts:
    """An entry. ``path``: as the guest names it, where the entry knows only that within its volume."""
    return Facts(**_facts(entry, entry.path if path is None else path))


def found_file(version: FileVersion, called: str) -> FoundFile:
    """A recorded version. ``called``: the name of its machine."""
    return FoundFile(
        **_facts(version, version.path),
        machine=version.machine,
        machine_name=called,
        volume=version.volume,
        first_point=version.first_point,
        last_point=version.last_point,
        current=not version.superseded,
    )


def change_of(change: Change, called: str) -> FileChange:
    """A difference between two restore points."""
    return FileChange(
        kind=Kind(change.kind.value),
        path=text_of(change.path),
        path_id=id_of(change.path),
        growth=change.growth,
        facts=list(change.facts),
        before=None if change.before is None else found_file(change.before, called),
        after=None if change.after is None else found_file(change.after, called),
    )


def volume_of(volume: Volume | ListedVolume) -> GuestVolume:
    """A volume, recorded or opened."""
    root = root_of(volume)
    return GuestVolume(
        id=volume.id,
        device=volume.device,
        mountpoint=volume.mountpoint,
        root=text_of(root),
        root_id=id_of(root),
        type=volume.type,
        label=volume.label,
        size=volume.size,
        problem=volume.problem,
        state=str(volume.state),
        state_detail=volume.state_detail,
    )


def root_of(volume: Volume | ListedVolume) -> bytes:
    """Where the guest has it: ``/``, ``/data``, ``C:``, ``/dev/sdb1:`` (as ``Volume.guest_path``)."""
    place = f"{volume.device}:" if volume.mountpoint is None else volume.mountpoint
    return place.encode(errors="surrogateescape").rstrip(b"/") or b"/"


def root_entry(volume: Volume | ListedVolume) -> Facts:
    """The root of a volume as a directory, where a machine has no root of its own."""
    root = root_of(volume)
    return Facts(
        path=text_of(root),
        path_id=id_of(root),
        name=text_of(root),
        type=FileType.DIRECTORY,
        size=volume.size,
        mode=0o755,
        uid=0,
        gid=0,
        modified_at=None,
        changed_at=None,
    )


def _facts(entry: FileEntry | FileVersion, path: bytes) -> dict[str, object]:
    return {
        "path": text_of(path),
        "path_id": id_of(path),
        "name": text_of(path.rsplit(b"/", 1)[-1]),
        "type": FileType(entry.type),
        "size": entry.size,
        "mode": entry.mode & 0o7777,
        "uid": entry.uid,
        "gid": entry.gid,
        "modified_at": moment_of(entry.mtime_ns),
        "changed_at": moment_of(entry.ctime_ns),
        "link_target": None if entry.link_target is None else text_of(entry.link_target),
    }
