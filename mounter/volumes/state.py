"""How a file system was left, read from its own marks: clean, or as after a power cut. A few small reads, nothing changed.

Where the marks are: ext2/3/4: Documentation/filesystems/ext4/super.rst of Linux. NTFS: layout.h and logfile.h of ntfs-3g.
XFS: "XFS Algorithms & Data Structures", chapter "Journaling Log" (see ``xfs_log``). FAT: Microsoft's "FAT: General
Overview of On-Disk Format" and the state byte of Linux' vfat. exFAT: Microsoft's exFAT file system specification. btrfs:
"On-disk format" of the btrfs documentation.
"""

import struct
from collections.abc import Callable

from mounter.ports import VolumeState
from mounter.volumes.xfs_log import left as xfs_left
from proxy.errors import LanfreeError
from proxy.units import KiB, MiB

Read = Callable[[int, int], bytes]
"""``read(offset, length)`` of a volume, in bytes from its beginning."""

Told = tuple[VolumeState, str]

_LARGEST_RECORD = 64 * KiB
"""Of an MFT record: 1 or 4 KiB in the field; the boot sector's byte could claim 2 GiB."""


class _Strange(Exception):
    """The bytes are not what the format says."""


def state_of(kind: str, read: Read) -> Told:
    """State and what told it. ``kind``: as blkid names the file system. Never raises for what the volume holds, nor for
    what cannot be read: that is ``UNKNOWN``, with the reason."""
    asked = _KINDS.get(kind)
    if asked is None:
        return VolumeState.UNKNOWN, f"{kind or 'no file system'}: its marks are not known"
    try:
        return asked(_exactly(read))
    except (_Strange, LanfreeError, OSError) as error:
        return VolumeState.UNKNOWN, f"cannot be told: {error}"
    except (struct.error, ValueError, OverflowError, IndexError) as error:
        return VolumeState.UNKNOWN, f"cannot be told: the structures make no sense ({error})"


def _exactly(read: Read) -> Read:
    def checked(offset: int, length: int) -> bytes:
        if offset < 0 or not 0 < length <= 4 * MiB:
            raise _Strange(f"{length} bytes at {offset} are asked for")
        data = read(offset, length)
        if len(data) != length:
            raise _Strange(f"it ends before {offset + length}")
        return bytes(data)

    return checked


def _ext(read: Read) -> Told:
    """``s_state`` (0x3A) and the feature "needs recovery" of ``s_feature_incompat`` (0x60)."""
    block = read(1024, 1024)
    magic, state = struct.unpack_from("<HH", block, 0x38)
    incompatible: int = struct.unpack_from("<I", block, 0x60)[0]
    if magic != 0xEF53:
        raise _Strange("no ext superblock")
    if incompatible & 0x8:
        return VolumeState.UNKNOWN, "it is the journal of another volume"
    if incompatible & 0x4:
        return VolumeState.DIRTY, "needs_recovery"
    if state & 0x2:
        return VolumeState.DIRTY, "errors were found in it"
    if not state & 0x1:
        return VolumeState.DIRTY, "not cleanly unmounted"
    return VolumeState.CLEAN, "clean"


def _ntfs(read: Read) -> Told:
    """The flags of ``$VOLUME_INFORMATION`` in $Volume (record 3), then the restart pages of $LogFile (record 2)."""
    boot = read(0, 512)
    if boot[3:11] != b"NTFS    ":
        raise _Strange("no NTFS boot sector")
    sector, per_cluster = struct.unpack_from("<HB", boot, 11)
    cluster = sector * (per_cluster if per_cluster <= 0x80 else 1 << (256 - per_cluster))
    size = struct.unpack_from("<b", boot, 0x40)[0]
    record = size * cluster if size > 0 else 1 << -size
    mft = struct.unpack_from("<Q", boot, 0x30)[0] * cluster
    if not (256 <= sector <= 4096 and 256 <= record <= _LARGEST_RECORD):
        raise _Strange(f"sectors of {sector} and records of {record} bytes")
    information = _attribute(_fixed(read(mft + 3 * record, record), b"FILE"), 0x70)
    start = struct.unpack_from("<H", information, 0x14)[0]
    flags: int = struct.unpack_from("<H", information, start + 10)[0]
    if flags & 0x1:
        return VolumeState.DIRTY, f"$Volume is marked dirty (flags {flags:#x})"
    log = _attribute(_fixed(read(mft + 2 * record, record), b"FILE"), 0x80)
    if not log[8]:
        raise _Strange("$LogFile lies within its record")
    return _log_file(read, _first_run(log) * cluster)


def _log_file(read: Read, start: int) -> Told:
    """Two restart pages; the one with the higher log sequence number counts. Filled with 0xFF: emptied on purpose."""
    first = read(start, 4 * KiB)
    if first == b"\xff" * len(first):
        return VolumeState.CLEAN, "not marked dirty, $LogFile is empty"
    newest, closed = -1, False
    for page in (first, read(start + 4 * KiB, 4 * KiB)):
        if page[:4] != b"RSTR":
            continue
        area = struct.unpack_from("<H", _fixed(page, b"RSTR"), 0x18)[0]
        number, _, _, in_use, flags = struct.unpack_from("<QHHHH", page, area)
        if number > newest:
            newest, closed = number, bool(flags & 0x2) or in_use == 0xFFFF
    if newest < 0:
        return VolumeState.UNKNOWN, "not marked dirty, $LogFile is not readable"
    if closed:
        return VolumeState.CLEAN, "not marked dirty, $LogFile was closed"
    # A volume in use has its log open; whether there is more in it than was written in place is not in these marks.
    return VolumeState.UNKNOWN, "not marked dirty, $LogFile was left open"


def _fixed(record: bytes, magic: bytes) -> bytes:
    """The record with its update sequence undone: the last two bytes of each 512 are kept apart in its head."""
    if record[:4] != magic:
        raise _Strange(f"no {magic.decode()} record")
    at, count = struct.unpack_from("<HH", record, 4)
    out = bytearray(record)
    if at + 2 * count > len(record) or (count - 1) * 512 > len(record):
        raise _Strange("its update sequence does not fit it")
    for number in range(1, count):
        end = number * 512
        if out[end - 2 : end] != record[at : at + 2]:
            raise _Strange("a part of a record was not written")
        out[end - 2 : end] = record[at + 2 * number : at + 2 * number + 2]
    return bytes(out)


def _attribute(record: bytes, wanted: int) -> bytes:
    """The first unnamed attribute of a type."""
    at: int = struct.unpack_from("<H", record, 0x14)[0]
    while at + 16 <= len(record):
        kind, length = struct.unpack_from("<II", record, at)
        if kind == 0xFFFFFFFF or length < 16 or at + length > len(record):
            break
        if kind == wanted and not record[at + 9]:
            return record[at : at + length]
        at += length
    raise _Strange(f"no attribute {wanted:#x}")


def _first_run(attribute: bytes) -> int:
    """The first cluster of a non-resident attribute."""
    at: int = struct.unpack_from("<H", attribute, 0x20)[0]
    lengths, offsets = attribute[at] & 15, attribute[at] >> 4
    run = attribute[at + 1 + lengths : at + 1 + lengths + offsets]
    if not lengths or not offsets or len(run) != offsets:
        raise _Strange("no run list")
    return int.from_bytes(run, "little", signed=True)


def _xfs(read: Read) -> Told:
    return xfs_left(read)


def _fat(read: Read) -> Told:
    """The top bits of the second entry of the first FAT (set: clean), and the state byte beside the serial number."""
    boot = read(0, 512)
    sector, per_cluster, reserved, copies, roots, total16 = struct.unpack_from("<HBHBHH", boot, 11)
    per_fat16 = struct.unpack_from("<H", boot, 22)[0]
    total32, per_fat32 = struct.unpack_from("<II", boot, 32)
    if boot[510:] != b"\x55\xaa" or sector not in (512, 1024, 2048, 4096) or not per_cluster or not copies:
        raise _Strange("no FAT boot sector")
    used = reserved + copies * (per_fat16 or per_fat32) + -(-roots * 32 // sector)
    clusters = ((total16 or total32) - used) // per_cluster
    wide = not per_fat16
    if boot[0x41 if wide else 0x25] & 0x1:
        return VolumeState.DIRTY, "marked dirty in its boot sector"
    if clusters < 4085:
        return VolumeState.CLEAN, "not marked dirty in its boot sector"  # entries of 12 bits have no room for marks
    entry: int = struct.unpack_from("<I" if wide else "<H", read(reserved * sector, 8), 4 if wide else 2)[0]
    closed, sound = (entry >> 27 & 1, entry >> 26 & 1) if wide else (entry >> 15 & 1, entry >> 14 & 1)
    if not closed:
        return VolumeState.DIRTY, "not cleanly unmounted"
    return (VolumeState.CLEAN, "clean") if sound else (VolumeState.DIRTY, "disk errors were met")


def _exfat(read: Read) -> Told:
    """``VolumeFlags`` (106): 2 is VolumeDirty, 4 is MediaFailure."""
    boot = read(0, 512)
    if boot[3:11] != b"EXFAT   ":
        raise _Strange("no exFAT boot sector")
    flags: int = struct.unpack_from("<H", boot, 106)[0]
    if flags & 0x2:
        return VolumeState.DIRTY, "VolumeDirty"
    return (VolumeState.DIRTY, "MediaFailure") if flags & 0x4 else (VolumeState.CLEAN, "clean")


def _btrfs(read: Read) -> Told:
    """Trees are never written in place: what a power cut leaves is at most a log tree with what was synced since."""
    block = read(64 * KiB, 4 * KiB)
    if block[0x40:0x48] != b"_BHRfS_M":
        raise _Strange("no btrfs superblock")
    log: int = struct.unpack_from("<Q", block, 0x60)[0]
    return (VolumeState.DIRTY, "a log tree is to be replayed") if log else (VolumeState.CLEAN, "no log tree")


_KINDS: dict[str, Callable[[Read], Told]] = {
    "ext2": _ext,
    "ext3": _ext,
    "ext4": _ext,
    "ntfs": _ntfs,
    "xfs": _xfs,
    "vfat": _fat,
    "msdos": _fat,
    "fat": _fat,
    "exfat": _exfat,
    "btrfs": _btrfs,
}
