"""What a device carries: magic numbers of partition tables, file systems, volume managers, disk images. Pure.

Used in one direction only: a restore refuses a device on which anything is found, unless a person said that it may go.
So a false alarm costs a question, and data that nothing here knows count as a finding too.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from proxy.errors import RestoreRefused
from proxy.units import KiB, MiB, align_down

Read = Callable[[int, int], bytes]
"""``read(offset, length)``: exactly these bytes of the device."""

HEAD = MiB + 64 * KiB
"""From the beginning: reaches VMFS's volume manager at 1 MiB, the farthest of all."""
TAIL = 512 * KiB
"""From the end: two ZFS labels; GPT's backup, md 0.90 and 1.0 lie nearer."""


class Magic(NamedTuple):
    """``value`` stands at ``offset`` from the beginning."""

    name: str
    offset: int
    value: bytes


MAGICS = (
    Magic("GPT partition table", 512, b"EFI PART"),
    Magic("GPT partition table", 4096, b"EFI PART"),  # 4-KiB blocks
    Magic("NTFS file system", 3, b"NTFS    "),
    Magic("exFAT file system", 3, b"EXFAT   "),
    Magic("FAT file system", 0x36, b"FAT1"),
    Magic("FAT file system", 0x52, b"FAT32   "),
    Magic("ext file system", 1024 + 56, b"\x53\xef"),
    Magic("XFS file system", 0, b"XFSB"),
    Magic("btrfs file system", 64 * KiB + 64, b"_BHRfS_M"),
    Magic("ISO 9660 file system", 32 * KiB + 1, b"CD001"),
    Magic("LVM physical volume", 0, b"LABELONE"),
    Magic("LVM physical volume", 512, b"LABELONE"),
    Magic("LVM physical volume", 1024, b"LABELONE"),
    Magic("LVM physical volume", 1536, b"LABELONE"),
    Magic("VMFS volume", MiB, bytes.fromhex("0dd001c0")),  # C001D00D, little endian
    Magic("LUKS volume", 0, b"LUKS\xba\xbe"),
    Magic("LUKS volume", 16 * KiB, b"SKUL\xba\xbe"),  # second header of LUKS2
    Magic("swap space", 4096 - 10, b"SWAPSPACE2"),
    Magic("swap space", 4096 - 10, b"SWAP-SPACE"),
    Magic("swap space", 64 * KiB - 10, b"SWAPSPACE2"),  # 64-KiB pages
    Magic("md RAID member", 0, bytes.fromhex("fc4e2ba9")),  # 1.1: a92b4efc, little endian
    Magic("md RAID member", 4096, bytes.fromhex("fc4e2ba9")),  # 1.2
    Magic("Oracle ASM disk", 32, b"ORCLDISK"),
    Magic("Ceph BlueStore", 0, b"bluestore block device"),
    Magic("qcow2 image", 0, b"QFI\xfb"),
    Magic("VMDK image", 0, b"KDMV"),
    Magic("VHDX image", 0, b"vhdxfile"),
    Magic("VHD image", 0, b"conectix"),
)

ZFS_UBERBLOCK = 0x00BAB10C
ZFS_LABEL = 256 * KiB
ZFS_UBERBLOCKS = 128 * KiB
"""Uberblocks stand at each KiB of a label's second half; L0 is at the beginning, L3 ends the device (aligned down)."""
MD_MAGIC = 0xA92B4EFC
UNKNOWN = "data of unknown kind"


def signatures(read: Read, size: int) -> list[str]:
    """Names of all that is found on a device of ``size`` bytes, each once; empty only if its beginning is all zero."""
    head = read(0, min(size, HEAD))
    tail_start = max(0, size - TAIL)
    tail = read(tail_start, size - tail_start)
    found = [magic.name for magic in MAGICS if head.startswith(magic.value, magic.offset)]
    found += _mbr(head, found)
    found += _zfs(head, tail, tail_start, size)
    found += _at_end(tail, tail_start, size)
    if not found and any(head):
        found.append(UNKNOWN)
    return list(dict.fromkeys(found))


def _mbr(head: bytes, found: list[str]) -> Iterator[str]:
    """55AA also ends the boot sectors of NTFS and FAT: a table has a partition of some type."""
    if head[510:512] == b"\x55\xaa":
        types = [head[446 + 16 * n + 4] for n in range(4)]
        if any(types):
            yield "MBR partition table"
        elif not found:
            yield "boot sector"


def _zfs(head: bytes, tail: bytes, tail_start: int, size: int) -> Iterator[str]:
    last = align_down(size, ZFS_LABEL) - ZFS_LABEL
    for label, data, start in ((0, head, 0), (last, tail, tail_start)):
        for at in range(label + ZFS_UBERBLOCKS - start, label + ZFS_LABEL - start, KiB):
            word = data[at : at + 8] if at >= 0 else b""
            if ZFS_UBERBLOCK in {int.from_bytes(word, "little"), int.from_bytes(word, "big")}:
                yield "ZFS pool member"
                return


def _at_end(tail: bytes, tail_start: int, size: int) -> Iterator[str]:
    def at(offset: int, length: int) -> bytes:
        return tail[offset - tail_start : offset - tail_start + length] if offset >= tail_start else b""

    if b"EFI PART" in {at(size - 512, 8), at(size - 4096, 8)}:
        yield "GPT partition table (backup)"
    if at(size - 512, 8) == b"conectix":
        yield "VHD image"
    old = align_down(size, 64 * KiB) - 64 * KiB  # md 0.90, in the byte order of its machine
    new = align_down(size - 8 * KiB, 4 * KiB)  # md 1.0
    magics = {MD_MAGIC.to_bytes(4, "little"), MD_MAGIC.to_bytes(4, "big")}
    if at(old, 4) in magics or at(new, 4) in magics:
        yield "md RAID member"


def refuse_signatures(device: str, read: Read, size: int) -> None:
    """Raises ``RestoreRefused`` when the device carries anything."""
    found = signatures(read, size)
    if found:
        raise RestoreRefused(
            device,
            f"it carries {', '.join(found)}",
            hint="name an empty place; if what is there may go, say --overwrite",
        )
