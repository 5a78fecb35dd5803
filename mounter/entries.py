"""Names and entries as an appliance's daemon gives them, made into what the port speaks of."""

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from mounter.guestfs_abi import Stat
from mounter.ports import TYPE_OF_MODE, FileEntry, FileType, shown
from proxy.errors import GuestFileNotFound
from proxy.units import MiB


def split_names(file: BinaryIO) -> Iterator[bytes]:
    """Names that end in NUL, read in pieces; relative, without leading slash."""
    rest = b""
    while piece := file.read(1 * MiB):
        *whole, rest = (rest + piece).split(b"\0")
        yield from (b"/" + name.lstrip(b"/") for name in whole if name.strip(b"/"))


def paths_below(path: str, subvolumes: Iterable[str]) -> tuple[bytes, ...]:
    """Paths of the subvolumes that lie in one of them, as seen from its root."""
    inside = path + "/" if path else ""
    return tuple(f"/{p[len(inside) :]}/".encode() for p in subvolumes if p.startswith(inside) and p != path)


def names_outside(inner: Sequence[bytes], names: Iterator[bytes]) -> Iterator[bytes]:
    """Names that are not within other subvolumes: those are volumes of their own. Their directories themselves stay."""
    return (name for name in names if not name.startswith(tuple(inner))) if inner else names


def checked_path(path: bytes) -> bytes:
    """The path, if it is absolute and stays where it seems to be."""
    if not path.startswith(b"/") or b"\0" in path or {b".", b".."} & set(path.split(b"/")):
        raise GuestFileNotFound(shown(path), "is not an absolute path without '.' and '..'")
    return path


def type_of(stat: Stat) -> FileType:
    """What kind of file it is."""
    return TYPE_OF_MODE.get(stat.mode & 0o170000, FileType.OTHER)


def entry_of(path: bytes, stat: Stat | None, link: bytes | None) -> FileEntry:
    """``link``: target of a symbolic link."""
    if stat is None:  # a name whose inode cannot be read: damaged, but it is there
        return FileEntry(path, FileType.OTHER, 0, 0, 0, 0, 0, 0, 0)
    kind = type_of(stat)
    target = link if kind is FileType.SYMLINK else None
    return FileEntry(
        path,
        kind,
        # of a target that was made shorter, its own; ext, XFS and others say the same
        stat.size if target is None else len(target),
        stat.mode & 0o7777,
        stat.uid,
        stat.gid,
        stat.mtime_ns,
        stat.ctime_ns,
        stat.inode,
        target,
        stat.links,
        stat.allocated,
        stat.device,
    )
