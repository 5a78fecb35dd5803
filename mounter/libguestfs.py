"""Guest file systems through a libguestfs appliance. Runs in the worker process only; the only importer of ``guestfs``.

One throw-away appliance a session: QEMU without network, the guest's disks read-only over NBD, a small kernel that parses
the file systems. All volumes are mounted side by side at ``/v0``, ``/v1``, … so that nothing hides anything.

Python's binding decodes every name as UTF-8 and fails on others. The calls that carry names therefore go to the C library
of the same handle (``guestfs_abi.py``); its ABI is stable (guestfs(3), "ABI GUARANTEE").
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import guestfs

from mounter.guestfs_abi import Names, Stat
from mounter.ports import FileEntry, FileType, FoundVolume, OperatingSystem, Volume, identified, shown
from proxy.closing import Closeable
from proxy.errors import GuestFileNotFound, MountFailed
from proxy.units import MiB

# libguestfs limits one message to 4 MiB; 2 MiB a read measured best (60 MB/s under software emulation).
PIECE = 2 * MiB

# Names taken at once from the list that the appliance's find has made. Bounds our memory (about 10 MiB); a smaller
# number splits large directories into more calls of 3 ms.
WALK_WINDOW = 50_000

# The library asks for 1000 names a call anyway; a batch of a walk is what one frame to the session carries.
BATCH = 1_000

# What list_filesystems calls things that hold no files; each is shown with the reason, but for swap.
_PROBLEMS = {
    "unknown": "no file system that we know",
    "crypto_LUKS": "encrypted (LUKS)",
    "BitLocker": "encrypted (BitLocker)",
}
_TYPES = {
    0o040000: FileType.DIRECTORY,
    0o100000: FileType.FILE,
    0o120000: FileType.SYMLINK,
    0o060000: FileType.BLOCK_DEVICE,
    0o020000: FileType.CHARACTER_DEVICE,
    0o010000: FileType.FIFO,
    0o140000: FileType.SOCKET,
}

_T = TypeVar("_T")


def open_filesystem(argument: Mapping[str, Any]) -> "LibguestfsFilesystem":
    """For the worker: ``sockets`` (NBD, in the machine's order of disks), ``directory``, ``accelerate``, ``memory_mib``."""
    return LibguestfsFilesystem(
        [str(s) for s in argument["sockets"]],
        Path(argument["directory"]),
        accelerate=bool(argument["accelerate"]),
        memory_mib=int(argument["memory_mib"]),
    )


class LibguestfsFilesystem(Closeable):
    """The port over one appliance. Blocks as long as libguestfs does: deadlines are the business of ``remote.py``."""

    def __init__(self, sockets: Sequence[str], directory: Path, *, accelerate: bool, memory_mib: int) -> None:
        self._directory = directory
        # The direct backend needs no libvirt daemon. Where KVM is a fake, libguestfs would pick it and crash.
        os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "" if accelerate else "force_tcg"
        g = self._g = guestfs.GuestFS(python_return_dict=True)
        try:
            g.set_backend("direct")
            g.set_memsize(memory_mib)
            g.set_tmpdir(str(directory))
            for socket in sockets:
                g.add_drive_opts("", readonly=True, format="raw", protocol="nbd", server=[f"unix:{socket}"])
            g.launch()
            self._raw = Names(g._o)
            self._systems, mountpoints = self._inspect()
            self._volumes = identified(list(self._mount_all(mountpoints)))
        except (RuntimeError, UnicodeDecodeError) as error:  # the binding decodes names that it lists
            g.close()
            raise MountFailed("the disks", _first_line(error), hint="'lanfree doctor' tries the appliance") from None

    def volumes(self) -> Sequence[Volume]:
        return self._volumes

    def operating_systems(self) -> Sequence[OperatingSystem]:
        return self._systems

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        root = self._root(volume)
        found = self._directory / f"names{root.decode().replace('/', '-')}"
        try:
            self._g.find0(root.decode(), str(found))
        except RuntimeError as error:
            raise MountFailed(f"volume {volume.device}", _first_line(error)) from None
        with found.open("rb") as file:
            found.unlink()
            names = _split(file)
            while window := list(islice(names, WALK_WINDOW)):
                yield from self._entries_of(root, window)

    def list_directory(self, volume: Volume, path: bytes) -> Sequence[FileEntry]:
        if self.entry(volume, path).type is not FileType.DIRECTORY:
            raise GuestFileNotFound(shown(path), "is not a directory")
        inside = path.rstrip(b"/")
        names = sorted(self._raw.names(self._root(volume) + (inside or b"/")))
        return self._entries(self._root(volume), inside, names)

    def entry(self, volume: Volume, path: bytes) -> FileEntry:
        full = self._root(volume) + _checked(path).rstrip(b"/")
        parent, _, name = full.rpartition(b"/")
        try:
            stat = self._raw.stats(parent or b"/", [name])[0]
        except OSError as error:
            raise GuestFileNotFound(shown(path), str(error.strerror)) from None
        if stat is None:
            raise GuestFileNotFound(shown(path))
        link = self._raw.links(parent or b"/", [name])[0] if _type(stat) is FileType.SYMLINK else None
        return _entry(path.rstrip(b"/") or b"/", stat, link)

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        if self.entry(volume, path).type is not FileType.FILE:
            raise GuestFileNotFound(shown(path), "is not a regular file")
        full = self._root(volume) + path
        return self._pieces(full, offset, shown(path))

    def xattrs(self, volume: Volume, path: bytes) -> Mapping[bytes, bytes]:
        self.entry(volume, path)
        try:
            return self._raw.xattrs(self._root(volume) + path)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTSUP):
                return {}
            raise MountFailed(shown(path), str(error.strerror)) from None

    def close(self) -> None:
        self._g.close()

    def _inspect(self) -> tuple[tuple[OperatingSystem, ...], dict[str, str]]:
        """What runs here, and device -> where the guest mounts it. A guest that cannot be understood has neither."""
        g = self._g
        systems: list[OperatingSystem] = []
        mountpoints: dict[str, str] = {}
        roots: list[str] = _said(g.inspect_os, [])
        for root in roots:
            kind: str = _said(g.inspect_get_type, "", root)
            mounts: dict[str, str] = _said(g.inspect_get_mountpoints, {}, root)
            if kind == "windows":
                drives: dict[str, str] = _said(g.inspect_get_drive_mappings, {}, root)
                mounts = {f"{letter}:": device for letter, device in drives.items()} or {"C:": root}
            for mountpoint, device in mounts.items():
                if mountpoint not in mountpoints.values():  # of two systems in one machine, the first has the name
                    mountpoints.setdefault(device, mountpoint)
            systems.append(self._system(root, kind))
        return tuple(systems), mountpoints

    def _system(self, root: str, kind: str) -> OperatingSystem:
        g = self._g
        major, minor = (_said(f, 0, root) for f in (g.inspect_get_major_version, g.inspect_get_minor_version))
        return OperatingSystem(
            root=root,
            type=kind,
            distribution=_said(lambda: g.inspect_get_distro(root), ""),
            product=_said(lambda: g.inspect_get_product_name(root), ""),
            version=f"{major}.{minor}" if major or minor else "",
            hostname=_said(lambda: g.inspect_get_hostname(root), ""),
            architecture=_said(lambda: g.inspect_get_arch(root), ""),
            packages_format=_said(lambda: g.inspect_get_package_format(root), ""),
        )

    def _mount_all(self, mountpoints: Mapping[str, str]) -> Iterator[FoundVolume]:
        g = self._g
        self._places: dict[str, bytes] = {}
        g.umount_all()  # inspection leaves nothing mounted, but says nowhere that it never does
        for number, (device, kind) in enumerate(sorted(g.list_filesystems().items())):
            if kind == "swap":
                continue
            problem = _PROBLEMS.get(kind)
            if problem is None:
                place = f"/v{number}"
                try:
                    g.mkmountpoint(place)
                    g.mount_ro(device, place)
                    self._places[device] = place.encode()
                except RuntimeError as error:
                    problem = _first_line(error)
            block = _said(g.mountable_device, device, device)
            yield FoundVolume(
                device=device,
                type=kind,
                label=_said(g.vfs_label, "", device),
                uuid=_said(g.vfs_uuid, "", device),
                size=_said(g.blockdev_getsize64, 0, block),
                mountpoint=mountpoints.get(device),
                problem=problem,
                name=_said(g.mountable_subvolume, "", device),
            )

    def _root(self, volume: Volume) -> bytes:
        place = self._places.get(volume.device)
        if place is None:
            raise MountFailed(f"volume {volume.device}", volume.problem or "it is not mounted")
        return place

    def _entries_of(self, root: bytes, paths: Sequence[bytes]) -> Iterator[Sequence[FileEntry]]:
        """Entries of paths in the order of directories' first appearance, which keeps a directory before its children."""
        directories: dict[bytes, list[bytes]] = {}
        for path in paths:
            parent, _, name = path.rpartition(b"/")
            directories.setdefault(parent, []).append(name)
        batch: list[FileEntry] = []
        for parent, names in directories.items():
            # A directory may be larger than a batch: what one frame to the session carries stays bounded.
            for start in range(0, len(names), BATCH):
                batch += self._entries(root, parent, names[start : start + BATCH])
                if len(batch) >= BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _entries(self, root: bytes, parent: bytes, names: Sequence[bytes]) -> list[FileEntry]:
        """``parent``: within the volume, empty for its root."""
        if not names:
            return []
        where = root + (parent or b"/")
        try:
            stats = self._raw.stats(where, names)
            linked = [n for n, s in zip(names, stats, strict=True) if s is not None and _type(s) is FileType.SYMLINK]
            links = dict(zip(linked, self._raw.links(where, linked), strict=True)) if linked else {}
        except OSError as error:
            raise MountFailed(shown(parent or b"/"), str(error.strerror)) from None
        return [_entry(parent + b"/" + n, s, links.get(n)) for n, s in zip(names, stats, strict=True)]

    def _pieces(self, full: bytes, offset: int, name: str) -> Iterator[bytes]:
        while True:
            try:
                piece = self._raw.pread(full, PIECE, offset)
            except OSError as error:
                raise MountFailed(name, f"reading at {offset}: {error.strerror}") from None
            if not piece:
                return
            yield piece
            offset += len(piece)


def _said(call: Callable[..., _T], otherwise: _T, *facts: str) -> _T:
    """What the library says about a guest, or ``otherwise`` when it cannot: these facts are welcome, never needed."""
    try:
        return call(*facts)
    except (RuntimeError, UnicodeDecodeError):
        return otherwise


def _split(file: Any) -> Iterator[bytes]:
    """Names that end in NUL, read in pieces; relative, without leading slash."""
    rest = b""
    while piece := file.read(1 * MiB):
        *whole, rest = (rest + piece).split(b"\0")
        yield from (b"/" + name.lstrip(b"/") for name in whole if name.strip(b"/"))


def _checked(path: bytes) -> bytes:
    """The path, if it is absolute and stays where it seems to be."""
    if not path.startswith(b"/") or b"\0" in path or {b".", b".."} & set(path.split(b"/")):
        raise GuestFileNotFound(shown(path), "is not an absolute path without '.' and '..'")
    return path


def _type(stat: Stat) -> FileType:
    return _TYPES.get(stat.mode & 0o170000, FileType.OTHER)


def _entry(path: bytes, stat: Stat | None, link: bytes | None) -> FileEntry:
    if stat is None:  # a name whose inode cannot be read: damaged, but it is there
        return FileEntry(path, FileType.OTHER, 0, 0, 0, 0, 0, 0, 0)
    kind = _type(stat)
    target = link if kind is FileType.SYMLINK else None
    return FileEntry(
        path,
        kind,
        stat.size,
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
