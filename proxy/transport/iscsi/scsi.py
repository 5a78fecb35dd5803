"""SCSI commands as bytes: what is sent and what comes back. Pure; SPC-4 (INCITS 513) and SBC-3 (INCITS 514).

Structs stand first, then the commands that a session may send, then the parsers. Numbers are big endian throughout.
Parsers raise ``FormatError`` when a device answers with something that the standard does not allow.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from proxy.errors import FormatError

CDB6 = struct.Struct(">BBBHB")
"""SPC-4 4.2.2.2: opcode, flags, page, allocation length, control (INQUIRY, 6.6)."""
CDB10 = struct.Struct(">BBIBHB")
"""SPC-4 4.2.2.3: opcode, flags, four bytes, group, length, control."""
CDB12 = struct.Struct(">BBBBBBIBB")
"""SPC-4 4.2.2.4: opcode, reserved, select report, reserved, allocation length, reserved, control (REPORT LUNS, 6.33)."""
CDB16 = struct.Struct(">BBQIBB")
"""SBC-3 5: opcode, flags or service action, LBA, length, group, control."""
CAPACITY16 = struct.Struct(">QIBBH16x")
"""SBC-3 5.16.2: last LBA, block size, protection, exponents, flags and lowest aligned LBA."""
LBA_STATUS_HEADER = struct.Struct(">I4x")
"""SBC-3 5.7.3: length of what follows."""
LBA_STATUS = struct.Struct(">QIB3x")
"""SBC-3 5.7.3: first LBA, blocks, provisioning status in the low four bits."""
UNMAP_HEADER = struct.Struct(">HH4x")
"""SBC-3 5.28.2: data length without itself, descriptor data length."""
UNMAP_DESCRIPTOR = struct.Struct(">QI4x")
"""SBC-3 5.28.2: first LBA, blocks."""
LUNS_HEADER = struct.Struct(">I4x")
"""SPC-4 6.33: length of the list."""
RESERVATION_HEADER = struct.Struct(">II")
"""SPC-4 6.15.3: generation, additional length (0: nobody holds a reservation)."""
RESERVATION = struct.Struct(">Q4xxBxx")
"""SPC-4 6.15.3.3: key, scope and type."""


class Opcode(IntEnum):
    """Operation codes that this program knows."""

    TEST_UNIT_READY = 0x00
    INQUIRY = 0x12
    MODE_SENSE_6 = 0x1A
    UNMAP = 0x42
    PERSISTENT_RESERVE_IN = 0x5E
    READ_16 = 0x88
    WRITE_16 = 0x8A
    SYNCHRONIZE_CACHE_16 = 0x91
    WRITE_SAME_16 = 0x93
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0


READ_CAPACITY_16 = 0x10
GET_LBA_STATUS = 0x12
"""Service actions of SERVICE ACTION IN(16)."""

SERVICE_ACTIONS = {
    Opcode.SERVICE_ACTION_IN_16: frozenset({READ_CAPACITY_16, GET_LBA_STATUS}),
    Opcode.PERSISTENT_RESERVE_IN: frozenset({0x00, 0x01}),  # READ KEYS, READ RESERVATION
}
"""Opcodes that name many commands are allowed with these service actions (low five bits of byte 1) only."""

READ_COMMANDS = frozenset(
    {
        Opcode.TEST_UNIT_READY,
        Opcode.INQUIRY,
        Opcode.READ_16,
        Opcode.SERVICE_ACTION_IN_16,
        Opcode.REPORT_LUNS,
    }
)
"""All that a backup session may send. None of them changes a byte, a reservation or a mode of a device."""

HARMLESS_COMMANDS = READ_COMMANDS | {Opcode.PERSISTENT_RESERVE_IN, Opcode.MODE_SENSE_6}
"""What a restore looks at before it writes: also reservations and the write-protect bit."""

WRITE_COMMANDS = HARMLESS_COMMANDS | {
    Opcode.WRITE_16,
    Opcode.UNMAP,
    Opcode.WRITE_SAME_16,
    Opcode.SYNCHRONIZE_CACHE_16,
}
"""What a restore session may send to the one logical unit that its token names."""


def is_allowed(cdb: bytes, allowed: frozenset[Opcode]) -> bool:
    """Whether the command, with its service action where it has one, is in the list."""
    try:
        opcode = Opcode(cdb[0])
    except ValueError:
        return False
    actions = SERVICE_ACTIONS.get(opcode)
    return opcode in allowed and (actions is None or cdb[1] & 0x1F in actions)


def test_unit_ready() -> bytes:
    """TEST UNIT READY (SPC-4 6.47)."""
    return bytes(6)


def inquiry(page: int | None, length: int) -> bytes:
    """INQUIRY (SPC-4 6.6): standard data, or vital product data ``page``; room for ``length`` bytes."""
    return CDB6.pack(Opcode.INQUIRY, 0 if page is None else 1, page or 0, length, 0)


def report_luns(length: int) -> bytes:
    """REPORT LUNS (SPC-4 6.33), well-known units left out."""
    return CDB12.pack(Opcode.REPORT_LUNS, 0, 0, 0, 0, 0, length, 0, 0)


def read_capacity() -> bytes:
    """READ CAPACITY(16) (SBC-3 5.16)."""
    return CDB16.pack(Opcode.SERVICE_ACTION_IN_16, READ_CAPACITY_16, 0, CAPACITY16.size, 0, 0)


def get_lba_status(block: int, length: int) -> bytes:
    """GET LBA STATUS (SBC-3 5.7) from ``block`` on, room for ``length`` bytes."""
    return CDB16.pack(Opcode.SERVICE_ACTION_IN_16, GET_LBA_STATUS, block, length, 0, 0)


def read(block: int, blocks: int) -> bytes:
    """READ(16) (SBC-3 5.15)."""
    return CDB16.pack(Opcode.READ_16, 0, block, blocks, 0, 0)


def write(block: int, blocks: int) -> bytes:
    """WRITE(16) (SBC-3 5.34)."""
    return CDB16.pack(Opcode.WRITE_16, 0, block, blocks, 0, 0)


def write_same(block: int, blocks: int, *, unmap: bool) -> bytes:
    """WRITE SAME(16) (SBC-3 5.46) of one block of data. ``unmap``: the device may deallocate if that reads the same."""
    return CDB16.pack(Opcode.WRITE_SAME_16, 0x08 if unmap else 0, block, blocks, 0, 0)


def synchronize_cache() -> bytes:
    """SYNCHRONIZE CACHE(16) (SBC-3 5.27) of the whole medium; returns when everything is durable."""
    return CDB16.pack(Opcode.SYNCHRONIZE_CACHE_16, 0, 0, 0, 0, 0)


def unmap(length: int) -> bytes:
    """UNMAP (SBC-3 5.28) with a parameter list of ``length`` bytes."""
    return CDB10.pack(Opcode.UNMAP, 0, 0, 0, length, 0)


def unmap_list(ranges: Sequence[tuple[int, int]]) -> bytes:
    """UNMAP's parameter list: ``(first block, blocks)`` each."""
    body = b"".join(UNMAP_DESCRIPTOR.pack(block, blocks) for block, blocks in ranges)
    return UNMAP_HEADER.pack(len(body) + UNMAP_HEADER.size - 2, len(body)) + body


def mode_sense(length: int) -> bytes:
    """MODE SENSE(6) (SPC-4 6.11) of all pages, for the header alone."""
    return CDB6.pack(Opcode.MODE_SENSE_6, 0x08, 0x3F, length, 0)  # DBD: no block descriptors


def is_write_protected(data: bytes) -> bool:
    """MODE SENSE(6) parameter data: WP of the device-specific parameter (SBC-3 6.5.1)."""
    if len(data) < 4:
        raise FormatError("MODE SENSE(6)", f"only {len(data)} bytes")
    return bool(data[2] & 0x80)


def read_reservation(length: int) -> bytes:
    """PERSISTENT RESERVE IN, READ RESERVATION (SPC-4 6.15.3)."""
    return CDB10.pack(Opcode.PERSISTENT_RESERVE_IN, 0x01, 0, 0, length, 0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """``blocks`` of ``block_size`` bytes. ``thin``: LBPME. ``zeroes``: LBPRZ, deallocated blocks read as zero."""

    blocks: int
    block_size: int
    thin: bool
    zeroes: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blocks * self.block_size


def parse_capacity(data: bytes) -> Capacity:
    """READ CAPACITY(16) parameter data."""
    if len(data) < CAPACITY16.size:
        raise FormatError("READ CAPACITY(16)", f"{len(data)} bytes instead of {CAPACITY16.size}")
    last, block_size, _, _, flags = CAPACITY16.unpack_from(data)
    if block_size < 512 or block_size & (block_size - 1):
        raise FormatError("READ CAPACITY(16)", f"blocks of {block_size} bytes")
    return Capacity(last + 1, block_size, thin=bool(flags & 0x8000), zeroes=bool(flags & 0x4000))


def parse_luns(data: bytes) -> list[int]:
    """REPORT LUNS parameter data: numbers by peripheral and flat addressing (SAM-5 4.7), sorted; others are left out."""
    if len(data) < LUNS_HEADER.size:
        raise FormatError("REPORT LUNS", f"only {len(data)} bytes")
    end = min(len(data), LUNS_HEADER.size + LUNS_HEADER.unpack_from(data)[0])
    found = set()
    for at in range(LUNS_HEADER.size, end - 7, 8):
        method, rest = data[at] >> 6, data[at + 2 : at + 8]
        if any(rest) or (method == 0 and data[at] != 0):
            continue
        if method in {0, 1}:
            found.add((data[at] & 0x3F) << 8 | data[at + 1])
    return sorted(found)


def lun_field(lun: int) -> int:
    """The first two bytes of SAM-5's eight-byte LUN: peripheral addressing below 256, flat space above (4.7.7)."""
    if not 0 <= lun < 0x4000:
        raise ValueError(f"LUN {lun}")
    return lun if lun < 0x100 else 0x4000 | lun


@dataclass(frozen=True, slots=True)
class LbaStatus:
    """A run of blocks. ``mapped`` is true for anything but plain deallocated (status 1)."""

    block: int
    blocks: int
    mapped: bool


def parse_lba_status(data: bytes) -> list[LbaStatus]:
    """GET LBA STATUS parameter data, in the device's order, empty runs left out."""
    if len(data) < LBA_STATUS_HEADER.size:
        raise FormatError("GET LBA STATUS", f"only {len(data)} bytes")
    # The length counts from behind itself, so it includes the four reserved bytes of the header.
    end = min(len(data), 4 + LBA_STATUS_HEADER.unpack_from(data)[0])
    runs: Iterable[tuple[int, int, int]] = (
        LBA_STATUS.unpack_from(data, at)
        for at in range(LBA_STATUS_HEADER.size, end - LBA_STATUS.size + 1, LBA_STATUS.size)
    )
    return [LbaStatus(block, blocks, status & 0x0F != 1) for block, blocks, status in runs if blocks]


def parse_reservation(data: bytes) -> str | None:
    """READ RESERVATION parameter data: what kind of reservation somebody holds, ``None`` when nobody does."""
    if len(data) < RESERVATION_HEADER.size:
        raise FormatError("READ RESERVATION", f"only {len(data)} bytes")
    length = RESERVATION_HEADER.unpack_from(data)[1]
    if length == 0:
        return None
    if len(data) < RESERVATION_HEADER.size + RESERVATION.size:
        raise FormatError("READ RESERVATION", f"only {len(data)} bytes")
    key, kind = RESERVATION.unpack_from(data, RESERVATION_HEADER.size)
    return f"{RESERVATION_TYPES.get(kind & 0x0F, f'type {kind & 0x0F}')}, key {key:#018x}"


RESERVATION_TYPES = {
    1: "write exclusive",
    3: "exclusive access",
    5: "write exclusive, registrants only",
    6: "exclusive access, registrants only",
    7: "write exclusive, all registrants",
    8: "exclusive access, all registrants",
}
"""SPC-4 table 70."""


class Status(IntEnum):
    """SAM-5 status codes, and libiscsi's own for what never got one."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40
    CANCELLED = 0x0F000000
    ERROR = 0x0F000001
    TIMEOUT = 0x0F000002


BUSY_STATUSES = frozenset({Status.BUSY, Status.TASK_SET_FULL, Status.RESERVATION_CONFLICT})
"""The device is well and will take the command later."""

BECOMING_READY = frozenset({0x0401, 0x040A})
"""Becoming ready; asymmetric access state transition (a controller takes over)."""


class SenseKey(IntEnum):
    """SPC-4 table 54, the keys that decide something here."""

    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    ABORTED_COMMAND = 0xB


SENSE_CODES = {
    0x2000: "invalid operation code",
    0x2100: "block address out of range",
    0x2400: "invalid field in CDB",
    0x2500: "logical unit not supported",
    0x2600: "invalid field in parameter list",
    0x2700: "write protected",
    0x1100: "unrecovered read error",
}
"""SPC-4 annex D, the few that a person will meet; others are shown by number."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: status, sense (key and ``ASC << 8 | ASCQ``) and bytes that did not move."""

    status: int
    sense_key: int = 0
    sense_code: int = 0
    residual: int = 0

    @property
    def good(self) -> bool:
        """Done, every byte moved or the shortfall known from ``residual``."""
        return self.status in {Status.GOOD, Status.CONDITION_MET}

    @property
    def busy(self) -> bool:
        """Worth asking again later: the queue is full, a reservation is held, or the unit is on its way to ready."""
        becoming_ready = self.sense_key == SenseKey.NOT_READY and self.sense_code in BECOMING_READY
        return self.status in BUSY_STATUSES or (self.status == Status.CHECK_CONDITION and becoming_ready)

    @property
    def aborted(self) -> bool:
        """The command was thrown out on the device's side, for reasons that need not come back."""
        return self.status == Status.TASK_ABORTED or (
            self.status == Status.CHECK_CONDITION and self.sense_key == SenseKey.ABORTED_COMMAND
        )

    @property
    def unit_attention(self) -> bool:
        """Something happened to the unit before this command, which was not carried out."""
        return self.status == Status.CHECK_CONDITION and self.sense_key == SenseKey.UNIT_ATTENTION

    @property
    def unsupported(self) -> bool:
        """The device does not know the command or one of its fields."""
        return self.status == Status.CHECK_CONDITION and self.sense_key == SenseKey.ILLEGAL_REQUEST

    @property
    def write_protected(self) -> bool:
        """The unit is read-only for us."""
        return self.status == Status.CHECK_CONDITION and self.sense_key == SenseKey.DATA_PROTECT

    def __str__(self) -> str:
        text = _name(Status, self.status)
        if self.status != Status.CHECK_CONDITION:
            return text
        key = _name(SenseKey, self.sense_key)
        code = SENSE_CODES.get(self.sense_code, f"additional sense {self.sense_code:#06x}")
        return f"{text}, {key}, {code}"


def _name(kind: type[IntEnum], value: int) -> str:
    try:
        return kind(value).name.replace("_", " ")
    except ValueError:
        return f"{kind.__name__} {value:#x}"
