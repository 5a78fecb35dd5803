"""Every magic number, alone on an otherwise empty device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import RestoreRefused
from proxy.transport.signatures import MAGICS, UNKNOWN, Magic, refuse_signatures, signatures
from proxy.units import KiB, MiB

pytestmark = pytest.mark.slow

SIZE = 8 * MiB


def on_device(*pieces: tuple[int, bytes], size: int = SIZE) -> list[str]:
    device = bytearray(size)
    for offset, value in pieces:
        start = offset if offset >= 0 else size + offset
        device[start : start + len(value)] = value
    return signatures(lambda at, length: bytes(device[at : at + length]), size)


def test_an_empty_device_carries_nothing() -> None:
    assert on_device() == []


@pytest.mark.parametrize("magic", MAGICS, ids=lambda m: f"{m.name} at {m.offset}")
def test_a_magic_number_is_found_at_its_place_and_only_there(magic: Magic) -> None:
    assert magic.name in on_device((magic.offset, magic.value))
    elsewhere = on_device((magic.offset + 7, magic.value))
    assert elsewhere == ([] if magic.offset + 7 > MiB + 64 * KiB else [UNKNOWN])


@pytest.mark.parametrize(
    ("offset", "value", "name"),
    [
        (-512, b"EFI PART", "GPT partition table (backup)"),
        (-4096, b"EFI PART", "GPT partition table (backup)"),
        (-512, b"conectix", "VHD image"),
        (SIZE - 64 * KiB, bytes.fromhex("fc4e2ba9"), "md RAID member"),
        (SIZE - 64 * KiB, bytes.fromhex("a92b4efc"), "md RAID member"),
        (SIZE - 8 * KiB, bytes.fromhex("fc4e2ba9"), "md RAID member"),
        (128 * KiB, (0xBAB10C).to_bytes(8, "little"), "ZFS pool member"),
        (255 * KiB, (0xBAB10C).to_bytes(8, "big"), "ZFS pool member"),
        (SIZE - 128 * KiB, (0xBAB10C).to_bytes(8, "little"), "ZFS pool member"),
    ],
)
def test_what_lies_at_the_end_or_in_many_places_is_found(offset: int, value: bytes, name: str) -> None:
    assert name in on_device((offset, value))


def test_a_boot_sector_is_a_partition_table_only_if_it_has_a_partition() -> None:
    assert on_device((510, b"\x55\xaa")) == ["boot sector"]
    assert on_device((510, b"\x55\xaa"), (446 + 4, b"\x83")) == ["MBR partition table"]
    assert on_device((510, b"\x55\xaa"), (3, b"NTFS    ")) == ["NTFS file system"]
    assert on_device((510, b"\x55\xaa"), (446 + 4, b"\xee"), (512, b"EFI PART")) == [
        "GPT partition table",
        "MBR partition table",
    ]


def test_any_byte_at_the_beginning_is_somebodys_data() -> None:
    assert on_device((5000, b"x")) == [UNKNOWN]
    assert on_device((2 * MiB, b"x")) == []  # and far inside it is not looked for


@pytest.mark.parametrize("size", [0, 512, 4096, 100 * KiB, MiB, MiB + 512])
def test_small_devices_are_looked_at_too(size: int) -> None:
    assert on_device(size=size) == []
    if size >= 512:
        assert "XFS file system" in on_device((0, b"XFSB"), size=size)


@pytest.mark.slow
@given(st.binary(max_size=4096), st.integers(0, 3 * MiB))
def test_no_content_makes_the_look_fail(content: bytes, offset: int) -> None:
    found = on_device((offset, content), size=4 * MiB)
    assert bool(found) or not any(content) or offset > 4096


def test_a_refusal_names_everything_that_was_found() -> None:
    device = bytearray(SIZE)
    device[1024 + 56 : 1024 + 58] = b"\x53\xef"
    device[0:4] = b"QFI\xfb"
    with pytest.raises(RestoreRefused, match="ext file system, qcow2 image"):
        refuse_signatures("naa.6x", lambda at, length: bytes(device[at : at + length]), SIZE)
