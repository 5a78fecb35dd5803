"""What a region holds, told in blkid's own words: type, label, UUID. Other formats are known only to be refused.

Sources: util-linux' documentation of blkid's names; the on-disk layouts of ext4 (kernel documentation), NTFS, FAT and
exFAT (Microsoft's specifications).
"""

import struct
import uuid
from dataclasses import dataclass

from mounter.tsk.image import MARKED, Region, blank
from proxy.errors import FastPathRefused
from proxy.units import KiB, MiB

EXT_MAGIC = b"\x53\xef"

# Features of ext: what makes it more than ext2 and ext3 for blkid (util-linux' ext superblock probe, by feature bits).
_JOURNAL = 0x4
_JOURNAL_DEVICE = 0x8
_EXT2_INCOMPAT = 0x2 | 0x10
_EXT3_INCOMPAT = _EXT2_INCOMPAT | 0x4
_EXT23_RO = 0x1 | 0x2 | 0x4
_TEST = 0x4

# (offset, mark, blkid's name). Whatever is found here is refused: containers, and file systems that TSK cannot read or
# that we have not compared.
_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"XFSB", "xfs"),
    (64 * KiB + 64, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "crypto_LUKS"),
    (0, b"SKUL\xba\xbe", "crypto_LUKS"),
    (3, b"-FVE-FS-", "BitLocker"),
    (512, b"LABELONE", "LVM2_member"),
    (0, b"LABELONE", "LVM2_member"),
    (1024, b"LABELONE", "LVM2_member"),
    (1536, b"LABELONE", "LVM2_member"),
    (0, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    (4096, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    (3, b"ReFS", "ReFS"),
    (1024, b"H+", "hfsplus"),
    (1024, b"HX", "hfsplus"),
    (1024, b"BD", "hfs"),
    (32, b"NXSB", "apfs"),
    (32 * KiB + 1, b"CD001", "iso9660"),
    (32 * KiB + 1, b"BEA01", "udf"),
    (64 * KiB + 52, b"ReIsEr", "reiserfs"),
    (8 * KiB + 52, b"ReIsEr", "reiserfs"),
    (32 * KiB, b"JFS1", "jfs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1024 + 6, b"\x34\x34", "nilfs2"),
    (0, b"hsqs", "squashfs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (64 * KiB + 1372, b"\x19\x01\x54\x19", "ufs"),
    (8 * KiB + 1372, b"\x19\x01\x54\x19", "ufs"),
    (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"),
    (1 * MiB, b"\x0d\xd0\x01\xc0", "VMFS_volume_member"),
    (2 * MiB, b"\x5e\xf1\xab\x2f", "VMFS"),
)

_FOREIGN_KINDS = {  # blkid's name -> our machine-readable reason, where it says more than the name
    "LVM2_member": "lvm",
    "linux_raid_member": "md",
    "crypto_LUKS": "encrypted",
    "BitLocker": "encrypted",
}

# Pages that swap may have: the mark stands at the end of the first one.
_PAGES = (4 * KiB, 8 * KiB, 16 * KiB, 32 * KiB, 64 * KiB)


@dataclass(frozen=True, slots=True)
class Recognised:
    """``type`` as blkid names it: ``ext4``, ``ntfs``, ``vfat``, ``swap``; ``unknown`` for what is empty; empty for what
    is not known here."""

    type: str
    label: str = ""
    uuid: str = ""


def recognise(region: Region) -> Recognised:
    """Raises ``FastPathRefused`` for everything that this reader is not for."""
    _refuse_foreign(region)
    for probe in (_ext, _ntfs, _exfat, _vfat, _swap):
        found = probe(region)
        if found is not None:
            return found
    return Recognised("unknown" if blank(region) else "")


def _refuse_foreign(region: Region) -> None:
    for offset, mark, name in _FOREIGN:
        if region.pread(offset, len(mark)) == mark:
            raise FastPathRefused(_FOREIGN_KINDS.get(name, name), f"a volume is {name}")
    # md 0.90 and 1.0 keep their superblock at the end; ZFS has labels at both ends, LDM its database at the end.
    tail = region.pread(max(0, region.size - 2 * MARKED), 2 * MARKED)
    for old in (len(tail) - 64 * KiB - (region.size % (64 * KiB)), len(tail) - 8 * KiB - region.size % (4 * KiB)):
        if old >= 0 and tail[old : old + 4] == b"\xfc\x4e\x2b\xa9":
            raise FastPathRefused("md", "a volume is linux_raid_member")
    if b"PRIVHEAD" in tail or region.pread(3 * KiB, 8) == b"PRIVHEAD":
        raise FastPathRefused("ldm", "a disk is a Windows dynamic disk")
    if b"\x0c\xb1\xba\x00\x00\x00\x00\x00" in region.pread(128 * KiB, 128 * KiB):
        raise FastPathRefused("zfs_member", "a volume is zfs_member")


def _ext(region: Region) -> Recognised | None:
    block = region.pread(1024, 1024)
    if block[56:58] != EXT_MAGIC:
        return None
    compat, incompat, read_only = struct.unpack_from("<III", block, 92)
    (flags,) = struct.unpack_from("<I", block, 352)
    if incompat & _JOURNAL_DEVICE:
        raise FastPathRefused("jbd", "a volume is a journal of another one")
    if flags & _TEST:
        raise FastPathRefused("ext4dev", "a volume is ext4dev")
    if incompat & ~_EXT3_INCOMPAT or read_only & ~_EXT23_RO:
        kind = "ext4"
    elif compat & _JOURNAL:
        kind = "ext3"
    else:
        kind = "ext2"
    own = uuid.UUID(bytes=block[104:120])
    return Recognised(kind, _label(block[120:136].split(b"\0")[0]), str(own) if own.int else "")


def _ntfs(region: Region) -> Recognised | None:
    boot = region.pread(0, 512)
    if boot[3:11] != b"NTFS    " or boot[510:] != b"\x55\xaa":
        return None
    (serial,) = struct.unpack_from("<Q", boot, 72)
    # The label is in the file $Volume, which needs the file system open: see ntfs.py.
    return Recognised("ntfs", "", f"{serial:016X}")


def _exfat(region: Region) -> Recognised | None:
    """Its times have hundredths of seconds and time zones, which TSK does not tell: for the appliance."""
    if region.pread(3, 8) == b"EXFAT   ":
        raise FastPathRefused("exfat", "a volume is exfat")
    return None


def _vfat(region: Region) -> Recognised | None:
    boot = region.pread(0, 512)
    if boot[510:] != b"\x55\xaa" or len(boot) < 512:
        return None
    sector, per_cluster, reserved, fats, entries, _, media, size16 = struct.unpack_from("<HBHBHHBH", boot, 11)
    if sector not in (512, 1024, 2048, 4096) or not per_cluster or per_cluster & (per_cluster - 1) or not fats:
        return None
    if (media < 0xF8 and media != 0xF0) or not reserved:
        return None
    (size32,) = struct.unpack_from("<I", boot, 36)
    old = bool(size16)
    if not (boot[54:57] == b"FAT" if old else boot[82:87] == b"FAT32"):
        return None
    (serial,) = struct.unpack_from("<I", boot, 39 if old else 67)
    root_start = (reserved + fats * (size16 or size32)) * sector
    if old:
        label = _vfat_label(region.pread(root_start, entries * 32))
    else:
        label = _vfat32_label(region, root_start, sector * per_cluster, reserved * sector, boot)
    return Recognised("vfat", label, f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if serial else "")


def _vfat32_label(region: Region, heap: int, cluster: int, fat: int, boot: bytes) -> str:
    """Follows the root directory's chain as far as labels are looked for."""
    (number,) = struct.unpack_from("<I", boot, 44)
    for _ in range(100):
        if not 2 <= number < 0x0FFFFFF0:
            break
        found = _vfat_label(region.pread(heap + (number - 2) * cluster, cluster))
        if found:
            return found
        link = region.pread(fat + 4 * number, 4)
        number = struct.unpack("<I", link)[0] & 0x0FFFFFFF if len(link) == 4 else 0
    return ""


def _vfat_label(directory: bytes) -> str:
    for at in range(0, len(directory) - 31, 32):
        entry = directory[at : at + 32]
        if entry[0] == 0:
            break
        if entry[0] == 0xE5 or entry[11] & 0x3F == 0x0F:
            continue
        if entry[11] & 0x18 == 0x08 and entry[26:28] == b"\0\0" and entry[20:22] == b"\0\0":
            raw = (b"\xe5" + entry[1:11] if entry[0] == 5 else entry[:11]).rstrip()
            return "" if raw == b"NO NAME" else _label(raw)
    return ""


def _swap(region: Region) -> Recognised | None:
    for page in _PAGES:
        mark = region.pread(page - 10, 10)
        if mark in (b"SWAP-SPACE", b"SWAPSPACE2"):
            return Recognised("swap")
    if region.pread(4 * KiB - 10, 9) in (b"S1SUSPEND", b"S2SUSPEND") or region.pread(4 * KiB - 10, 8) == b"ULSUSPEN":
        raise FastPathRefused("swsuspend", "the machine was hibernated: its file systems lag behind its memory")
    return None


def _label(raw: bytes) -> str:
    """As blkid prints it. Raises ``FastPathRefused`` for bytes that it would print in a notation of its own."""
    try:
        text = raw.decode("utf-8").rstrip()
    except UnicodeDecodeError:
        raise FastPathRefused("label", "a volume's label is not UTF-8") from None
    if not all(c.isprintable() for c in text):
        raise FastPathRefused("label", "a volume's label is not printable")
    return text
