"""Headers and tables of delta disks. Little-endian; offsets and sizes on disk in sectors of 512 bytes.

::

    vmfsSparse   |header "COWD"|grain directory, 32 bits|grain tables, 4096 x 32 bits|grains of 512 bytes …|
                 an entry is the first sector of its table or grain, 0: look in the parent
    seSparse     |header|volatile header|journal|grain directory, 64 bits|grain tables, 4096 x 64 bits|…|grains of 4 KiB …|
                 directory  0 | 0x10000000_<table number>
                 table      top 4 bits: 0 look in the parent, 1 unmapped and 2 zero: reads as zero, 3 the grain with the
                            number  bits 48..59 | bits 0..47 << 12

An unmapped grain does *not* show the parent's bytes: the guest has discarded what was there.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.errors import FormatError
from proxy.transport.vmdk.descriptor import SECTOR, SIZE_LIMIT
from proxy.units import MiB

COWD_MAGIC = b"COWD"
COWD = struct.Struct("<4s7I")
COWD_SIZE = 2048
COWD_UNCLEAN_AT = 1648
COWD_TABLE = 4096

SE_MAGIC = 0xCAFEBABE
SE_VERSION = 0x0000000200000001
SE_VOLATILE_MAGIC = 0xCAFECAFE
SE = struct.Struct("<26Q")
SE_VOLATILE = struct.Struct("<4Q")
SE_TABLE_MARK = np.uint64(0x10000000)

ABSENT, DATA, ZERO = 0, 1, 2
"""Classes of a grain: ask the parent; held here; reads as zero."""


@dataclass(frozen=True, slots=True)
class SparseLayout:
    """Where a delta keeps what; all in bytes but ``per_table``. ``directory_entries``: tables that ``size`` asks for."""

    size: int
    grain: int
    per_table: int
    entry: int
    directory_at: int
    tables_at: int
    grains_at: int

    @property
    def table_size(self) -> int:
        """Bytes of a grain table."""
        return self.per_table * self.entry

    @property
    def span(self) -> int:
        """Bytes of the disk that one table maps."""
        return self.per_table * self.grain

    @property
    def directory_entries(self) -> int:
        """Tables of the whole disk, absent ones included."""
        return -(-self.size // self.span)


def parse_cowd(what: str, raw: bytes) -> SparseLayout:
    """The first 2 KiB of a vmfsSparse extent. Raises ``FormatError``."""
    if len(raw) < COWD_SIZE:
        raise FormatError(what, "a header that is cut off")
    magic, version, _flags, sectors, grain, directory, entries, _free = COWD.unpack_from(raw)
    if magic != COWD_MAGIC or version != 1:
        raise FormatError(what, f"magic {magic!r}, version {version}")
    if not 0 < grain <= MiB // SECTOR or not 0 < sectors <= SIZE_LIMIT // SECTOR or not directory:
        raise FormatError(what, f"{sectors} sectors in grains of {grain}, directory at {directory}")
    layout = SparseLayout(sectors * SECTOR, grain * SECTOR, COWD_TABLE, 4, directory * SECTOR, 0, 0)
    if entries < layout.directory_entries:
        raise FormatError(what, f"a directory of {entries} entries for {sectors} sectors")
    return layout


def parse_sesparse(what: str, raw: bytes) -> tuple[SparseLayout, int]:
    """The first sector of a seSparse extent, and where its volatile header is. Raises ``FormatError``."""
    if len(raw) < SECTOR:
        raise FormatError(what, "a header that is cut off")
    fields = SE.unpack_from(raw)
    magic, version, capacity, grain, table, _flags = fields[:6]
    volatile_at, directory_at, directory_size, tables_at, grains_at = (fields[i] for i in (10, 16, 17, 18, 24))
    if magic != SE_MAGIC or version != SE_VERSION:
        raise FormatError(what, f"magic {magic:#x}, version {version:#x}")
    if grain != 8 or table != 64 or not 0 < capacity <= SIZE_LIMIT // SECTOR:
        raise FormatError(what, f"{capacity} sectors in grains of {grain}, tables of {table}")
    if not all(0 < at <= SIZE_LIMIT // SECTOR for at in (volatile_at, directory_at, tables_at, grains_at)):
        raise FormatError(what, f"directory at {directory_at}, tables at {tables_at}, grains at {grains_at}")
    entry = 8
    layout = SparseLayout(
        size=capacity * SECTOR,
        grain=grain * SECTOR,
        per_table=table * SECTOR // entry,
        entry=entry,
        directory_at=directory_at * SECTOR,
        tables_at=tables_at * SECTOR,
        grains_at=grains_at * SECTOR,
    )
    if directory_size * SECTOR < layout.directory_entries * entry:
        raise FormatError(what, f"a directory of {directory_size} sectors for {capacity}")
    return layout, volatile_at * SECTOR


def is_unclean(raw: bytes) -> bool:
    """Whether a vmfsSparse header says that its writer did not close it."""
    return bool(struct.unpack_from("<I", raw, COWD_UNCLEAN_AT)[0])


def replay_needed(what: str, raw: bytes) -> bool:
    """Whether a volatile header says that the journal holds what the tables lack. Raises ``FormatError``."""
    magic, _free, _sequence, replay = SE_VOLATILE.unpack_from(raw)
    if magic != SE_VOLATILE_MAGIC:
        raise FormatError(what, f"volatile header: magic {magic:#x}")
    return bool(replay)


def table_places(what: str, directory: bytes, layout: SparseLayout) -> NDArray[np.int64]:
    """Where each table is in the file, 0 for absent ones. Raises ``FormatError``."""
    if layout.entry == 4:
        return np.frombuffer(directory, "<u4").astype(np.int64) * SECTOR
    entries = np.frombuffer(directory, "<u8")
    present = entries != 0
    if np.any(present & (entries >> np.uint64(32) != SE_TABLE_MARK)):
        raise FormatError(what, "a directory entry of an unknown kind")
    numbers = (entries & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return np.where(present, layout.tables_at + numbers * layout.table_size, 0)


def grains(what: str, table: bytes, layout: SparseLayout) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Class of each grain of a table, and where it is in the file if it is ``DATA``. Raises ``FormatError``."""
    if layout.entry == 4:
        sectors = np.frombuffer(table, "<u4").astype(np.int64)
        if np.any(sectors == 1):  # grains never lie in the header; other sparse formats mark zeroes so
            raise FormatError(what, "a grain in sector 1")
        return (sectors != 0).astype(np.uint8), sectors * SECTOR
    entries = np.frombuffer(table, "<u8")
    kinds = (entries >> np.uint64(60)).astype(np.uint8)
    if np.any(kinds > 3) or np.any((kinds == 0) & (entries != 0)):
        raise FormatError(what, "a grain of an unknown kind")
    low = (entries & np.uint64(0x0000FFFFFFFFFFFF)) << np.uint64(12)
    numbers = (entries >> np.uint64(48) & np.uint64(0xFFF)) | low
    if np.any((kinds == 3) & (numbers >= np.uint64(SIZE_LIMIT // layout.grain))):
        raise FormatError(what, "a grain far outside of the file")
    held = kinds == 3
    classes = np.where(held, DATA, np.where(kinds == 0, ABSENT, ZERO)).astype(np.uint8)
    return classes, np.where(held, layout.grains_at + numbers.astype(np.int64) * layout.grain, 0)
