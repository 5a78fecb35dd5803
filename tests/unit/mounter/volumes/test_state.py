"""How a volume was left, from its own bytes. Real file systems: tests/integration/mounter/test_volume_state_images.py."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mounter.ports import VolumeState
from mounter.volumes.state import Read, state_of
from proxy.errors import MountFailed

KINDS = ["ext2", "ext3", "ext4", "ntfs", "xfs", "vfat", "exfat", "btrfs"]
SIZE = 1 << 20


def reader(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def ext(*, state: int = 1, incompatible: int = 0) -> bytes:
    image = bytearray(4096)
    struct.pack_into("<HH", image, 1024 + 0x38, 0xEF53, state)
    struct.pack_into("<I", image, 1024 + 0x60, incompatible)
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "state", "detail"),
    [
        (ext(), VolumeState.CLEAN, "clean"),
        (ext(incompatible=4), VolumeState.DIRTY, "needs_recovery"),
        (ext(state=0), VolumeState.DIRTY, "not cleanly unmounted"),
        (ext(state=3), VolumeState.DIRTY, "errors were found in it"),
        (ext(incompatible=8), VolumeState.UNKNOWN, "it is the journal of another volume"),
    ],
)
def test_an_ext_volume_tells_by_its_superblock(image: bytes, state: VolumeState, detail: str) -> None:
    assert state_of("ext4", reader(image)) == (state, detail)


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_of_zeroes_tells_nothing(kind: str) -> None:
    state, detail = state_of(kind, reader(bytes(SIZE)))
    assert state is VolumeState.UNKNOWN
    assert detail.startswith("cannot be told")


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_that_ends_too_early_tells_nothing(kind: str) -> None:
    assert state_of(kind, reader(b""))[0] is VolumeState.UNKNOWN


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_unknown_with_the_reason(kind: str) -> None:
    def broken(_offset: int, _length: int) -> bytes:
        raise MountFailed("volume /dev/sda1", "input/output error")

    state, detail = state_of(kind, broken)
    assert state is VolumeState.UNKNOWN
    assert "input/output error" in detail


@pytest.mark.parametrize("kind", ["", "swap", "crypto_LUKS", "LVM2_member"])
def test_other_kinds_are_unknown_without_a_read(kind: str) -> None:
    def never(_offset: int, _length: int) -> bytes:
        raise AssertionError("nothing is to be read")

    assert state_of(kind, never)[0] is VolumeState.UNKNOWN


MAGICS = {"ntfs": (3, b"NTFS    "), "xfs": (0, b"XFSB"), "exfat": (3, b"EXFAT   "), "vfat": (510, b"\x55\xaa")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(noise=st.binary(min_size=512, max_size=512), seed=st.integers(0, 255))
def test_whatever_the_bytes_are_reads_stay_bounded_and_nothing_is_raised(kind: str, noise: bytes, seed: int) -> None:
    head = bytearray(noise)
    at, magic = MAGICS.get(kind, (0, b""))
    head[at : at + len(magic)] = magic
    asked: list[int] = []

    def hostile(offset: int, length: int) -> bytes:
        asked.append(length)
        return (
            (bytes(head) + bytes([seed]) * length)[offset : offset + length] if offset < 512 else head * (length // 512)
        )

    state, detail = state_of(kind, hostile)
    assert isinstance(state, VolumeState)
    assert detail
    assert sum(asked) <= 4 << 20
