"""CDBs byte by byte as the standards draw them, answers, and the list of commands."""

import struct

import pytest

from proxy.errors import FormatError
from proxy.transport.iscsi import scsi
from proxy.transport.iscsi.scsi import LbaStatus, Opcode, Outcome, Status


@pytest.mark.parametrize(
    ("cdb", "expected"),
    [
        (scsi.test_unit_ready(), "000000000000"),
        (scsi.inquiry(None, 96), "120000006000"),
        (scsi.inquiry(0x83, 2048), "120183080000"),
        (scsi.mode_sense(192), "1a083f00c000"),
        (scsi.report_luns(0x8008), "a00000000000000080080000"),
        (scsi.read_capacity(), "9e10" + "0000000000000000" + "00000020" + "0000"),
        (scsi.get_lba_status(0x1122334455, 0x10000), "9e12" + "0000001122334455" + "00010000" + "0000"),
        (scsi.read(0x1122334455, 512), "8800" + "0000001122334455" + "00000200" + "0000"),
        (scsi.write(7, 1), "8a00" + "0000000000000007" + "00000001" + "0000"),
        (scsi.write_same(8, 16, unmap=True), "9308" + "0000000000000008" + "00000010" + "0000"),
        (scsi.write_same(8, 16, unmap=False), "9300" + "0000000000000008" + "00000010" + "0000"),
        (scsi.synchronize_cache(), "9100" + "0000000000000000" + "00000000" + "0000"),
        (scsi.unmap(24), "42000000000000001800"),
        (scsi.read_reservation(256), "5e010000000000010000"),
    ],
)
def test_a_cdb_is_what_the_standard_draws(cdb: bytes, expected: str) -> None:
    assert cdb.hex() == expected


def test_unmap_carries_its_two_lengths_and_its_ranges() -> None:
    body = scsi.unmap_list([(1, 2), (0x10000000000, 4)])
    assert body.hex() == "0026" + "0020" + "00000000" + "000000000000000100000002" + "00000000" + (
        "0000010000000000" + "00000004" + "00000000"
    )


def test_a_reading_session_may_send_six_commands_of_all_there_are() -> None:
    allowed = {
        (opcode, action)
        for opcode in range(256)
        for action in range(32)
        if scsi.is_allowed(bytes([opcode, action]) + bytes(14), scsi.READ_COMMANDS)
    }
    names = {Opcode(opcode).name for opcode, _ in allowed}
    assert names == {"TEST_UNIT_READY", "INQUIRY", "READ_16", "SERVICE_ACTION_IN_16", "REPORT_LUNS"}
    assert {action for opcode, action in allowed if opcode == Opcode.SERVICE_ACTION_IN_16} == {0x10, 0x12}


def test_a_restore_adds_four_commands_that_change_something_and_two_that_look() -> None:
    assert {
        Opcode.WRITE_16,
        Opcode.UNMAP,
        Opcode.WRITE_SAME_16,
        Opcode.SYNCHRONIZE_CACHE_16,
    } == scsi.WRITE_COMMANDS - scsi.HARMLESS_COMMANDS
    assert {Opcode.MODE_SENSE_6, Opcode.PERSISTENT_RESERVE_IN} == scsi.HARMLESS_COMMANDS - scsi.READ_COMMANDS


def test_reservations_are_read_and_never_taken() -> None:
    for action in range(2, 32):
        assert not scsi.is_allowed(bytes([0x5E, action]) + bytes(8), scsi.WRITE_COMMANDS)
    assert not scsi.is_allowed(bytes([0x5F, 0]) + bytes(8), scsi.WRITE_COMMANDS)


def test_capacity_has_size_and_what_deallocated_blocks_read_as() -> None:
    data = struct.pack(">QIBBH16x", 0xFFFF, 4096, 0, 0, 0xC000)
    capacity = scsi.parse_capacity(data)
    assert (capacity.size, capacity.thin, capacity.zeroes) == (0x10000 * 4096, True, True)
    assert not scsi.parse_capacity(struct.pack(">QIBBH16x", 1, 512, 0, 0, 0x8000)).zeroes


@pytest.mark.parametrize(
    "data",
    [b"", bytes(31), struct.pack(">QIBBH16x", 1, 0, 0, 0, 0), struct.pack(">QIBBH16x", 1, 520, 0, 0, 0)],
    ids=["empty", "short", "no block size", "520-byte blocks"],
)
def test_a_capacity_that_cannot_be_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        scsi.parse_capacity(data)


def test_luns_are_read_in_both_addressing_methods_and_others_left_out() -> None:
    entries = ["0007000000000000", "412c000000000000", "0000000000000000", "c101000000000000", "0100000000000000"]
    body = b"".join(bytes.fromhex(e) for e in entries)
    data = struct.pack(">I4x", len(body)) + body
    assert scsi.parse_luns(data) == [0, 7, 300]
    assert scsi.parse_luns(data[:20]) == [7]  # cut off in the middle of an entry
    with pytest.raises(FormatError):
        scsi.parse_luns(b"\0\0")


def test_the_lun_field_changes_its_method_at_256() -> None:
    assert [scsi.lun_field(n) for n in (0, 255, 256, 300, 16383)] == [0, 255, 0x4100, 0x412C, 0x7FFF]
    for wrong in (-1, 16384):
        with pytest.raises(ValueError, match="LUN"):
            scsi.lun_field(wrong)


def test_lba_status_counts_from_behind_its_length_field() -> None:
    runs = [(0, 8, 1), (8, 8, 0), (16, 8, 2), (24, 0, 1), (24, 8, 0xF1)]
    body = b"".join(struct.pack(">QIB3x", *run) for run in runs)
    data = struct.pack(">I4x", len(body) + 4) + body
    parsed = [LbaStatus(0, 8, False), LbaStatus(8, 8, True), LbaStatus(16, 8, True), LbaStatus(24, 8, False)]
    assert scsi.parse_lba_status(data) == parsed
    assert scsi.parse_lba_status(data[:-1]) == parsed[:-1]
    assert scsi.parse_lba_status(data + bytes(64)) == parsed


def test_a_reservation_is_named_by_type_and_key() -> None:
    assert scsi.parse_reservation(struct.pack(">II", 9, 0)) is None
    held = struct.pack(">II", 9, 16) + struct.pack(">Q4xxBxx", 0xAB, 0x05)
    assert scsi.parse_reservation(held) == "write exclusive, registrants only, key 0x00000000000000ab"
    with pytest.raises(FormatError):
        scsi.parse_reservation(held[:-1])


@pytest.mark.parametrize(
    ("outcome", "text", "properties"),
    [
        (Outcome(0), "GOOD", {"good"}),
        (Outcome(Status.BUSY), "BUSY", {"busy"}),
        (Outcome(Status.TASK_SET_FULL), "TASK SET FULL", {"busy"}),
        (Outcome(Status.RESERVATION_CONFLICT), "RESERVATION CONFLICT", {"busy"}),
        (Outcome(2, 2, 0x0401), "CHECK CONDITION, NOT READY, additional sense 0x0401", {"busy"}),
        (Outcome(2, 2, 0x3A00), "CHECK CONDITION, NOT READY, additional sense 0x3a00", set()),
        (Outcome(2, 6, 0x2900), "CHECK CONDITION, UNIT ATTENTION, additional sense 0x2900", {"unit_attention"}),
        (Outcome(2, 5, 0x2000), "CHECK CONDITION, ILLEGAL REQUEST, invalid operation code", {"unsupported"}),
        (Outcome(2, 7, 0x2700), "CHECK CONDITION, DATA PROTECT, write protected", {"write_protected"}),
        (Outcome(2, 0xB, 0x4700), "CHECK CONDITION, ABORTED COMMAND, additional sense 0x4700", {"aborted"}),
        (Outcome(Status.TASK_ABORTED), "TASK ABORTED", {"aborted"}),
        (Outcome(0x77), "Status 0x77", set()),
        (Outcome(2, 0xE, 0x1D00), "CHECK CONDITION, SenseKey 0xe, additional sense 0x1d00", set()),
    ],
)
def test_an_outcome_says_what_may_be_done_and_reads_well(outcome: Outcome, text: str, properties: set[str]) -> None:
    known = {"good", "busy", "unit_attention", "unsupported", "write_protected", "aborted"}
    assert str(outcome) == text
    assert {name for name in known if getattr(outcome, name)} == properties


def test_write_protection_is_one_bit_of_the_mode_header() -> None:
    assert scsi.is_write_protected(bytes([3, 0, 0x80, 0]))
    assert not scsi.is_write_protected(bytes([3, 0x80, 0x10, 0x80]))
    with pytest.raises(FormatError):
        scsi.is_write_protected(b"\0\0\x80")
