"""Guest file systems through a libguestfs appliance. Runs in the worker process only; the only importer of ``guestfs``.

One throw-away appliance a session: QEMU without network, the guest's disks read-only over NBD, a small kernel that parses
the file systems. All volumes are mounted side by side at ``/v0``, ``/v1``, … so that nothing hides anything.

Python's binding decodes every name as UTF-8 and fails on others. The calls that carry names therefore go to the C library
of the same handle (``guestfs_abi.py``); its ABI is stable (guestfs(3), "ABI GUARANTEE").
"""

import base64
import errno
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import guestfs

from mounter.containers import NOTHING, Containers, Found, distinct_btrfs, said
from mounter.entries import checked_path, entry_of, names_outside, paths_below, split_names, type_of
from mounter.guestfs_abi import Names
from mounter.inspection import MountedFiles
from mounter.keys import Key
from mounter.ports import FileEntry, FileType, FoundVolume, OperatingSystem, Volume, VolumeState, identified, shown
from mounter.volumes.mountpoints import inspect
from mounter.volumes.partition_tables import PartitionTables
from mounter.volumes.state import state_of
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

# Tried in this order. Logs are replayed, into the overlay of the session. "nouuid": XFS refuses the second one of two clones.
# A log that cannot be replayed is left alone in the second try: older files are better than none.
_MOUNT_OPTIONS = {
    "xfs": ("ro,nouuid", "ro,nouuid,norecovery"),
    "ext3": ("ro", "ro,noload"),
    "ext4": ("ro", "ro,noload"),
    "btrfs": ("ro", "ro,rescue=nologreplay"),
}

# QEMU's own filter of system calls: no new programs, no other user, nothing that it does not need (QEMU's manual, -sandbox).
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

# Seconds within which QEMU refuses words that it does not know; what fails later was started.
_AT_ONCE = 5.0

# File systems that find names in any letter case.
_FOLDING = {"ntfs", "vfat", "exfat", "msdos"}

# Where the appliance's daemon has what is mounted at "/"; ntfs-3g shows it in the targets of junctions.
_SYSROOT = b"/sysroot"


def open_filesystem(argument: Mapping[str, Any]) -> "LibguestfsFilesystem":
    """For the worker: ``sockets`` (NBD, in the machine's order of disks), ``directory``, ``accelerate``, ``memory_mib``,
    and ``keys`` (of ``Key``) if there are any."""
    return LibguestfsFilesystem(
        [str(s) for s in argument["sockets"]],
        Path(argument["directory"]),
        accelerate=bool(argument["accelerate"]),
        memory_mib=int(argument["memory_mib"]),
        keys=argument.get("keys", ()),
    )


class LibguestfsFilesystem(Closeable):
    """The port over one appliance. Blocks as long as libguestfs does: deadlines are the business of ``remote.py``."""

    def __init__(
        self,
        sockets: Sequence[str],
        directory: Path,
        *,
        accelerate: bool,
        memory_mib: int,
        keys: Sequence[Key] = (),
    ) -> None:
        self._directory = directory
        # The direct backend needs no libvirt daemon. Where KVM is a fake, libguestfs would pick it and crash.
        os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "" if accelerate else "force_tcg"
        began = time.monotonic()
        try:
            self._g = _launched(sockets, directory, memory_mib, quiet=bool(keys), confined=True)
        except RuntimeError as error:
            if time.monotonic() - began > _AT_ONCE:
                raise _cannot_start(error) from None
            try:  # a QEMU that was built without it knows no "-sandbox"
                self._g = _launched(sockets, directory, memory_mib, quiet=bool(keys), confined=False)
            except RuntimeError as again:
                raise _cannot_start(again) from None
        g = self._g
        try:
            self._raw = Names(g._o)
            self._inner: dict[str, tuple[bytes, ...]] = {}
            self._places: dict[str, bytes] = {}
            self._ntfs: set[bytes] = set()
            self._open(keys)
        except (RuntimeError, UnicodeDecodeError) as error:  # the binding decodes names that it lists
            g.close()
            raise _cannot_start(error) from None

    @property
    def handle(self) -> Any:
        """The library's own handle, for what the port does not offer."""
        return self._g

    def mount_at(self, volume: Volume, place: str) -> None:
        """Mount a volume read-only at a directory of the appliance, with the options that it needs. Raises ``MountFailed``."""
        problem = self._mount(volume.device, volume.type, place) if volume.problem is None else volume.problem
        if problem is not None:
            raise MountFailed(f"volume {volume.device}", problem)

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
            names = names_outside(self._inner.get(volume.device, ()), split_names(file))
            while window := list(islice(names, WALK_WINDOW)):
                yield from self._entries_of(root, window)

    def list_directory(self, volume: Volume, path: bytes) -> Sequence[FileEntry]:
        if self.entry(volume, path).type is not FileType.DIRECTORY:
            raise GuestFileNotFound(shown(path), "is not a directory")
        inside = path.rstrip(b"/")
        names = sorted(self._raw.names(self._root(volume) + (inside or b"/")))
        return self._entries(self._root(volume), inside, names)

    def entry(self, volume: Volume, path: bytes) -> FileEntry:
        full = self._root(volume) + checked_path(path).rstrip(b"/")
        parent, _, name = full.rpartition(b"/")
        try:
            stat = self._raw.stats(parent or b"/", [name])[0]
        except OSError as error:
            raise GuestFileNotFound(shown(path), str(error.strerror)) from None
        if stat is None:
            raise GuestFileNotFound(shown(path))
        link = self._raw.links(parent or b"/", [name])[0] if type_of(stat) is FileType.SYMLINK else None
        return entry_of(path.rstrip(b"/") or b"/", stat, self._target(self._root(volume), link))

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

    def _open(self, keys: Sequence[Key]) -> None:
        g = self._g
        tables = PartitionTables(g, g.list_devices())
        found = Containers(g, tables, keys, self._unlock).found
        # Before anything is mounted: that replays logs, and would make what was dirty clean.
        states = {each.device: self._state(each) for each in found}
        sizes = {each.block: tables.size_of(each.block) for each in found}
        volumes = [volume for each in distinct_btrfs(g, found) for volume in self._subvolumes(each)]
        ordered = enumerate(sorted(volumes, key=lambda each: each.device))
        told = [self._volume(number, each, states[each.block], sizes[each.block]) for number, each in ordered]
        folding = frozenset(v.device for v in told if v.type in _FOLDING)
        inspection = inspect(told, tables, MountedFiles(g, self._raw, self._places, folding))
        self._systems = tuple(inspection.systems)
        where = inspection.mountpoints
        self._volumes = identified([replace(v, mountpoint=where.get(v.device)) for v in told])

    def _unlock(self, device: str, secret: bytes, name: str) -> None:
        if b"\0" not in secret:
            self._raw.unlock(device, secret, name)
            return
        # The call above takes a C string, so a key file with NULs needs cryptsetup itself. The words of this command exist
        # in the memory of the appliance alone, where nobody else is.
        key = base64.b64encode(secret).decode()
        kind = "luks" if self._g.vfs_type(device) == "crypto_LUKS" else "bitlk"
        opened = f"cryptsetup -q open --type {kind} --key-file=- {shlex.quote(device)} {shlex.quote(name)}"
        try:
            output: str = self._g.debug("sh", [f"printf %s {key} | base64 -d | {opened} 2>&1 || echo failed with $?"])
        except RuntimeError as error:
            raise RuntimeError(_first_line(error).replace(key, "***")) from None
        if not said(self._g.blockdev_getsize64, 0, f"/dev/mapper/{name}"):
            raise RuntimeError(output.replace(key, "***") or "cryptsetup did not open it")

    def _state(self, found: Found) -> tuple[VolumeState, str]:
        if found.problem is not None:
            return VolumeState.UNKNOWN, ""

        def read(offset: int, length: int) -> bytes:
            try:
                data: bytes = self._g.pread_device(found.device, length, offset)
            except RuntimeError as error:
                raise OSError(errno.EIO, _first_line(error)) from None
            return data

        return state_of(found.type, read)

    def _subvolumes(self, found: Found) -> Iterator[Found]:
        """The device itself, which stands for btrfs' default subvolume, then the other subvolumes."""
        g = self._g
        yield found
        if found.type != "btrfs" or found.problem is not None:
            return
        default: int = said(g.btrfs_subvolume_get_default, 5, found.device)
        known = {
            str(s["btrfssubvolume_path"]): int(s["btrfssubvolume_id"])
            for s in said(g.btrfs_subvolume_list, NOTHING, found.device)
        }
        top = next((path for path, number in known.items() if number == default), "")
        self._inner[found.device] = paths_below(top, known)
        for path, number in known.items():
            if number != default:
                mountable = f"btrfsvol:{found.device}/{path}"
                self._inner[mountable] = paths_below(path, known)
                yield replace(found, device=mountable, name=path)

    def _volume(self, number: int, found: Found, state: tuple[VolumeState, str], size: int) -> FoundVolume:
        problem, place = found.problem, f"/v{number}"
        if problem is None:
            self._g.mkmountpoint(place)
            problem = self._mount(found.device, found.type, place)
            if problem is None:
                self._places[found.device] = place.encode()
                if found.type == "ntfs":
                    self._ntfs.add(place.encode())
        return FoundVolume(
            device=found.device,
            type=found.type,
            label=found.label,
            uuid=found.uuid,
            size=size,
            problem=problem,
            name=found.name,
            state=state[0],
            state_detail=state[1],
        )

    def _mount(self, device: str, kind: str, place: str) -> str | None:
        """Mount read-only; why that cannot be done."""
        problem: str | None = None
        for options in _MOUNT_OPTIONS.get(kind, ("ro",)):
            try:
                self._g.mount_options(options, device, place)
            except RuntimeError as error:
                problem = problem or _first_line(error)
            else:
                return None
        return problem

    def _target(self, root: bytes, link: bytes | None) -> bytes | None:
        """A link's target as the guest has it: ntfs-3g puts the place where it is mounted before those of junctions."""
        if link is not None and root in self._ntfs and (link + b"/").startswith(_SYSROOT + root + b"/"):
            return link[len(_SYSROOT + root) :] or b"/"
        return link

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
            linked = [n for n, s in zip(names, stats, strict=True) if s is not None and type_of(s) is FileType.SYMLINK]
            targets = self._raw.links(where, linked) if linked else ()
            links = {name: self._target(root, target) for name, target in zip(linked, targets, strict=True)}
        except OSError as error:
            raise MountFailed(shown(parent or b"/"), str(error.strerror)) from None
        return [entry_of(parent + b"/" + n, s, links.get(n)) for n, s in zip(names, stats, strict=True)]

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


def _launched(sockets: Sequence[str], directory: Path, memory_mib: int, *, quiet: bool, confined: bool) -> Any:
    """A running appliance. ``quiet``: nothing is traced. ``confined``: QEMU filters its own system calls."""
    g = guestfs.GuestFS(python_return_dict=True)
    try:
        g.set_backend("direct")
        if quiet:  # an operator's LIBGUESTFS_DEBUG or LIBGUESTFS_TRACE must not print keys
            g.set_verbose(False)
            g.set_trace(False)
        if confined:
            g.config("-sandbox", _SANDBOX)
        g.set_memsize(memory_mib)
        g.set_tmpdir(str(directory))
        for socket in sockets:
            g.add_drive_opts("", readonly=True, format="raw", protocol="nbd", server=[f"unix:{socket}"])
        g.launch()
    except RuntimeError:
        g.close()
        raise
    return g


def _cannot_start(error: Exception) -> MountFailed:
    return MountFailed("the disks", _first_line(error), hint="'lanfree doctor' tries the appliance")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
