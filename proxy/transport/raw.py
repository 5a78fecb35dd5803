"""Raw transport: files in directories that hosts and proxy share, and block devices that the proxy's kernel has.

The second is the way to Fibre Channel, NVMe and iSCSI behind the kernel's multipath. A host's ``/dev/sdb`` is not the
proxy's, so a device is opened by a name that is unique in the world (``/dev/disk/by-id``) and by no other.

Block devices are read with O_DIRECT: other hosts write to them, and the page cache of this kernel would go on showing
what an earlier backup read. Files are read through the page cache; keeping that right is their file system's duty.
"""

import errno
import fcntl
import mmap
import os
import stat
import struct
import threading
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from proxy.closing import Closeable
from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused
from proxy.extents import Extent, Kind, normal
from proxy.model import ChangeId, DeviceAddress, FileAddress, FrozenDisk, Layer, LunAddress
from proxy.ports import BlockSource
from proxy.transport.guard import check_read
from proxy.transport.layers import open_layers
from proxy.units import MiB, align_down, align_up

MODE = "raw"

BY_ID = Path("/dev/disk/by-id")
"""Where udev names devices by what they say of themselves."""

LINKS = {
    "naa.": ("dm-uuid-mpath-3", "wwn-0x", "scsi-3"),
    "eui.": ("dm-uuid-mpath-2", "nvme-eui.", "scsi-2"),
}
"""How udev writes a canonical name, multipath before a single path of it (the digit is the designator's type)."""

WORLD_WIDE_PREFIXES = (*(link for links in LINKS.values() for link in links), "nvme-uuid.", "dm-uuid-LVM-")
"""Links that mean the same device on every machine."""

BLKGETSIZE64 = 0x80081272
"""<linux/fs.h>: _IOR(0x12, 114, size_t); bytes."""
BLKSSZGET = 0x1268
"""<linux/fs.h>: _IO(0x12, 104); logical block size."""

DIRECT_ALIGNMENT = 4096
"""Offsets, lengths and addresses of O_DIRECT reads: right for 512-byte and 4-KiB devices."""
DIRECT_BUFFER = MiB
"""Aligned memory per reading thread; the copy loop reads 1 MiB at a time."""


class RawReason(StrEnum):
    """Why this transport refuses."""

    NOT_SHARED = "path-not-shared"
    MISSING = "path-missing"
    NOT_READABLE = "path-not-readable"
    WRONG_KIND = "not-a-file-or-device"
    NO_WORLD_WIDE_NAME = "device-name-not-unique"
    NOT_LOCAL = "not-on-this-machine"


class SharedFiles:
    """What a transport may open on this machine: files below ``directories``, devices below ``by_id``."""

    def __init__(self, directories: Sequence[Path | str], by_id: Path = BY_ID) -> None:
        self._directories = tuple(Path(d).resolve() for d in directories)
        self._by_id = by_id

    def inside(self, path: str) -> Path | None:
        """The real path, links resolved, of what lies below a shared directory (it need not exist); else ``None``."""
        real = Path(path).resolve()
        shared = Path(path).is_absolute() and any(real.is_relative_to(d) for d in self._directories)
        return real if shared else None

    def check(self, path: str, mode: str, disk: str) -> Path:
        """The real path of a shared file. Raises ``TransportRefused`` for whatever lies, or leads, outside."""
        real = self.inside(path)
        if real is None:
            raise TransportRefused(
                mode,
                disk,
                RawReason.NOT_SHARED,
                f"{path} is not below a shared directory",
                hint="add its directory to shared_directories of [raw], if hosts and proxy see the same files there",
            )
        try:
            kind = real.stat().st_mode
        except OSError as error:
            raise _refused(mode, disk, path, error) from error
        if not stat.S_ISREG(kind):
            raise TransportRefused(mode, disk, RawReason.WRONG_KIND, f"{path} is not a regular file")
        return real

    def open_container(self, path: str, mode: str, disk: str) -> "FileSource":
        """The bytes of a shared file. Raises ``TransportRefused``."""
        return FileSource(_open(self.check(path, mode, disk), mode, disk), path)

    def device(self, address: DeviceAddress | LunAddress, mode: str, disk: str) -> Path:
        """The local device of that name. Raises ``TransportRefused``."""
        for candidate in self._candidates(address):
            if candidate.exists():
                return candidate
        if address.name is None:
            place = address.path if isinstance(address, DeviceAddress) else f"{address.target}/{address.lun}"
            detail = f"{place} means another device on another machine"
            hint = "use the device by its /dev/disk/by-id name in the machine's definition"
            raise TransportRefused(mode, disk, RawReason.NO_WORLD_WIDE_NAME, detail, hint=hint)
        raise TransportRefused(
            mode,
            disk,
            RawReason.MISSING,
            f"no device {address.name} below {self._by_id}",
            hint="map the LUN to this machine, rescan, or add a [[san.target]]",
        )

    def open_device(self, address: DeviceAddress | LunAddress, mode: str, disk: str) -> "DeviceSource":
        """The bytes of a block device. Raises ``TransportRefused``."""
        link = self.device(address, mode, disk)
        if not stat.S_ISBLK(link.stat().st_mode):
            raise TransportRefused(mode, disk, RawReason.WRONG_KIND, f"{link} is not a block device")
        return DeviceSource(_open(link, mode, disk, os.O_DIRECT), address.name or link.name)

    def _candidates(self, address: DeviceAddress | LunAddress) -> Iterator[Path]:
        if address.name is not None:
            yield from (self._by_id / f"{link}{address.name[4:]}" for link in LINKS.get(address.name[:4], ()))
        if isinstance(address, DeviceAddress):
            path = Path(address.path)
            if path.parent == self._by_id and path.name.startswith(WORLD_WIDE_PREFIXES):
                yield path


def _open(path: Path, mode: str, disk: str, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except OSError as error:
        raise _refused(mode, disk, str(path), error) from error


def _refused(mode: str, disk: str, path: str, error: OSError) -> TransportRefused:
    missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
    reason = RawReason.MISSING if missing else RawReason.NOT_READABLE
    return TransportRefused(mode, disk, reason, f"{path}: {error.strerror}")


class FileSource(Closeable):
    """A ``BlockSource`` over an open file; takes the descriptor over. Reads use no shared position."""

    can_report_extents = True

    def __init__(self, fd: int, identity: str) -> None:
        self._fd = fd
        self.identity = identity
        self.size = os.fstat(fd).st_size

    def extents(self) -> Sequence[Extent]:
        """Holes by SEEK_HOLE; file systems that know none give one DATA extent."""
        return normal(file_runs(self._fd, self.size, self.identity))

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """A file does not know. Raises ``ChangesUnknown``."""
        raise ChangesUnknown(self.identity, "no-tracking-for-format", "a file itself keeps no record of changes")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer. Raises ``ReadFailed``."""
        flat = buffer.cast("B")
        check_read(self.identity, self.size, offset, len(flat), closed=self._fd < 0)
        done = 0
        while done < len(flat):
            try:
                count = os.preadv(self._fd, [flat[done:]], offset + done)
            except OSError as error:
                raise ReadFailed(self.identity, offset + done, len(flat) - done, str(error.strerror)) from error
            if count == 0:
                raise ReadFailed(self.identity, offset + done, len(flat) - done, "the file became shorter")
            done += count

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def file_runs(fd: int, size: int, identity: str) -> Iterator[Extent]:
    """DATA and ZERO runs of the first ``size`` bytes of an open file, in order; moves its position. Raises ``ReadFailed``."""

    def seek(position: int, whence: int) -> int:
        try:
            return min(os.lseek(fd, position, whence), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind this position
                return size
            raise ReadFailed(identity, position, size - position, str(error.strerror)) from error

    position = 0
    while position < size:
        data = seek(position, os.SEEK_DATA)
        if data > position:
            yield Extent(position, data - position, Kind.ZERO)
        if data >= size:
            return
        hole = seek(data, os.SEEK_HOLE)
        yield Extent(data, hole - data)
        position = hole


class DeviceSource(Closeable):
    """A ``BlockSource`` over a descriptor opened with O_DIRECT; takes it over. Each thread reads through aligned memory."""

    can_report_extents = False

    def __init__(self, fd: int, identity: str) -> None:
        self._fd = fd
        self.identity = identity
        self.size = device_size(fd)
        self._memory = threading.local()

    def extents(self) -> Sequence[Extent]:
        """One DATA extent: the kernel does not tell what a device has allocated."""
        return [Extent(0, self.size)] if self.size else []

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """A device does not know. Raises ``ChangesUnknown``."""
        raise ChangesUnknown(self.identity, "no-tracking-for-format", "a device itself keeps no record of changes")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer. Raises ``ReadFailed``."""
        flat = buffer.cast("B")
        check_read(self.identity, self.size, offset, len(flat), closed=self._fd < 0)
        done = 0
        while done < len(flat):
            low = align_down(offset + done, DIRECT_ALIGNMENT)
            high = min(align_up(offset + len(flat), DIRECT_ALIGNMENT), low + DIRECT_BUFFER)
            got = self._read_aligned(low, high - low)
            skip = offset + done - low
            piece = got[skip : skip + len(flat) - done]
            if not piece:
                raise ReadFailed(self.identity, offset + done, len(flat) - done, "the device ends here")
            flat[done : done + len(piece)] = piece
            done += len(piece)

    def close(self) -> None:
        """Close the device."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _read_aligned(self, offset: int, length: int) -> memoryview:
        memory: mmap.mmap | None = getattr(self._memory, "map", None)
        if memory is None:
            memory = self._memory.map = mmap.mmap(-1, DIRECT_BUFFER)
        view = memoryview(memory)
        try:
            return view[: os.preadv(self._fd, [view[:length]], offset)]
        except OSError as error:
            raise ReadFailed(self.identity, offset, length, str(error.strerror)) from error


def device_size(fd: int) -> int:
    """Bytes of a block device, or of a file."""
    status = os.fstat(fd)
    if not stat.S_ISBLK(status.st_mode):
        return status.st_size
    answer = fcntl.ioctl(fd, BLKGETSIZE64, bytes(8))
    return int(struct.unpack("=Q", answer)[0])


class RawTransport:
    """Mode ``raw``."""

    mode = MODE

    def __init__(self, files: SharedFiles) -> None:
        self._files = files

    def probe(self, disk: FrozenDisk) -> None:
        """Every layer is a shared file or a local device. Raises ``TransportRefused``."""
        for layer in disk.layers:
            match layer.location:
                case FileAddress(path=path):
                    self._files.check(path, MODE, disk.key)
                case DeviceAddress() | LunAddress() as address:
                    self._files.device(address, MODE, disk.key)
                case other:
                    raise TransportRefused(MODE, disk.key, RawReason.NOT_LOCAL, f"a layer is {other}")

    def open(self, disk: FrozenDisk) -> BlockSource:
        """Raises ``TransportRefused`` or ``ReadFailed``."""
        self.probe(disk)
        return open_layers(disk, lambda layer: self._container(disk, layer), MODE)

    def _container(self, disk: FrozenDisk, layer: Layer) -> BlockSource:
        match layer.location:
            case FileAddress(path=path):
                return self._files.open_container(path, MODE, disk.key)
            case DeviceAddress() | LunAddress() as address:
                return self._files.open_device(address, MODE, disk.key)
            case other:
                raise TransportRefused(MODE, disk.key, RawReason.NOT_LOCAL, f"a layer is {other}")
