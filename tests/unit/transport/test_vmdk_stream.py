"""Stream-optimised VMDK: what is written is read again, and nothing hostile is believed. ``qemu-img`` is asked in
``tests/integration/transport/test_vmdk_stream_qemu.py``."""

import io
import struct
import zlib
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import FormatError
from proxy.transport.vmdk import stream_format as fmt
from proxy.transport.vmdk.stream_format import GRAIN, Marker, StreamHeader
from proxy.transport.vmdk.stream_reader import StreamReader
from proxy.transport.vmdk.stream_writer import StreamWriter, pack_grain
from proxy.units import GiB, KiB, MiB, TiB
from tests.unit.transport.nfc_host import read, written

SECTOR = 512


def disk_of(size: int, filled: dict[int, bytes]) -> bytes:
    disk = bytearray(size)
    for start, data in filled.items():
        disk[start : start + len(data)] = data[: size - start]
    return bytes(disk)


class Forge:
    """A stream put together by hand, marker after marker."""

    def __init__(self, size: int = 4 * MiB, **header: int) -> None:
        self.header = StreamHeader(size, GRAIN, **header)
        self.parts = [fmt.pack_header(self.header), fmt.pack_descriptor(self.header, "forged")]
        self.parts.append(bytes(self.header.overhead * SECTOR - len(self.raw)))
        self.table = array("I", bytes(2048))

    @property
    def raw(self) -> bytes:
        return b"".join(self.parts)

    @property
    def sector(self) -> int:
        return len(self.raw) // SECTOR

    def grain(self, start: int, packed: bytes | None = None, *, listed: bool = True) -> "Forge":
        if listed:
            self.table[start // GRAIN % 512] = self.sector
        self.parts.append(fmt.pack_grain(start, zlib.compress(b"\x11" * GRAIN) if packed is None else packed))
        return self

    def metadata(self, kind: int, content: bytes = b"", sectors: int | None = None) -> "Forge":
        count = -(-len(content) // SECTOR) if sectors is None else sectors
        self.parts.append(struct.pack("<QII", count, 0, kind).ljust(SECTOR, b"\0"))
        self.parts.append(content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0"))
        return self

    def end(self, *, directory: int | None = None) -> bytes:
        place = self.sector + 1
        self.metadata(Marker.TABLE, self.table.tobytes())
        at = self.sector + 1
        self.metadata(Marker.DIRECTORY, struct.pack("<I", place if directory is None else directory))
        self.metadata(Marker.FOOTER, fmt.pack_header(self.header.at(at)))
        return self.metadata(Marker.END).raw


def test_the_structures_have_the_sizes_of_the_specification() -> None:
    assert fmt.HEADER.size == 79
    assert fmt.MARKER.size == 12
    assert len(fmt.pack_header(StreamHeader(GiB, GRAIN))) == SECTOR


@pytest.mark.slow
@pytest.mark.parametrize("size", [512, GRAIN - 512, GRAIN, GRAIN + 512, 3 * MiB + 512, 40 * MiB])
def test_a_disk_comes_back_as_it_was(size: int) -> None:
    disk = disk_of(size, {0: b"begin", size // 2: b"\xfe" * (100 * KiB), size - 5: b"the end"})
    assert read(written(disk)) == disk


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    sectors=st.integers(1, 33 * MiB // SECTOR),
    filled=st.dictionaries(st.integers(0, 33 * MiB), st.binary(min_size=1, max_size=300), max_size=12),
)
def test_any_disk_comes_back_as_it_was(sectors: int, filled: dict[int, bytes]) -> None:
    size = sectors * SECTOR
    disk = disk_of(size, {at % size: data for at, data in filled.items()})
    assert read(written(disk)) == disk


@pytest.mark.slow
def test_zeroes_take_no_room_and_a_thin_disk_stays_thin() -> None:
    empty, one = written(bytes(40 * MiB)), written(disk_of(40 * MiB, {17 * MiB: b"x"}))
    assert len(empty) < 128 * SECTOR + 4 * KiB
    assert len(one) < len(empty) + 4 * KiB
    starts = [grain.start for grain in StreamReader(io.BytesIO(one), "one").grains()]
    assert starts == [17 * MiB]


def test_the_last_grain_is_cut_at_the_end_of_the_disk() -> None:
    reader = StreamReader(io.BytesIO(written(b"\x01" * (GRAIN + 512))), "short")
    assert [(g.start, g.length, len(g.unpack("short"))) for g in reader.grains()] == [
        (0, GRAIN, GRAIN),
        (GRAIN, 512, 512),
    ]


def test_bytes_that_cannot_be_packed_smaller_fit() -> None:
    noise = bytes(range(256)) * 256
    stubborn = zlib.compress(noise, 0)
    forged = Forge().grain(0, stubborn).end()
    assert read(forged)[:GRAIN] == noise


def test_signs_of_life_are_passed_over() -> None:
    forge = Forge().grain(0)
    for _ in range(4):
        forge.metadata(Marker.PROGRESS)
    assert read(forge.grain(GRAIN).end())[: 2 * GRAIN] == b"\x11" * 2 * GRAIN


def test_a_reader_takes_a_stream_in_any_pieces() -> None:
    disk = disk_of(5 * MiB, {0: b"a" * MiB, 4 * MiB: b"b" * 70_000})

    class Drops(io.BytesIO):
        def read(self, length: int | None = -1, /) -> bytes:
            return super().read(min(length or 0, 777))

    reader = StreamReader(Drops(written(disk)), "drops")
    assert b"".join(g.unpack("drops") for g in reader.grains()).count(b"a") == MiB


def test_a_writer_never_goes_back() -> None:
    writer = StreamWriter(lambda raw: None, 4 * MiB, "disk.vmdk")
    packed = pack_grain(GRAIN, memoryview(b"x" * GRAIN))
    assert packed is not None
    writer.put(GRAIN, packed)
    for start in (0, GRAIN, 4 * MiB):
        with pytest.raises(ValueError, match="a grain at"):
            writer.put(start, packed)


@pytest.mark.parametrize("size", [0, 100, 65 * TiB])
def test_a_size_that_the_format_cannot_have_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        StreamWriter(lambda raw: None, size, "disk.vmdk")


# --- hostile input ---

GOOD = Forge().grain(0).grain(3 * GRAIN).end()


def patched(offset: int, value: bytes) -> bytes:
    raw = bytearray(GOOD)
    raw[offset : offset + len(value)] = value
    return bytes(raw)


def test_the_forged_stream_itself_is_good() -> None:
    assert read(GOOD)[: 4 * GRAIN] == b"\x11" * GRAIN + bytes(2 * GRAIN) + b"\x11" * GRAIN


@pytest.mark.parametrize(
    ("what", "offset", "value"),
    [
        ("another magic", 0, b"COWD"),
        ("version 0", 4, struct.pack("<I", 0)),
        ("version 4", 4, struct.pack("<I", 4)),
        ("no markers", 8, struct.pack("<I", 0x10001)),
        ("no compression flag", 8, struct.pack("<I", 0x20001)),
        ("no size", 12, struct.pack("<Q", 0)),
        ("65 TiB", 12, struct.pack("<Q", 65 * TiB // 512)),
        ("a size of 2^64", 12, b"\xff" * 8),
        ("grains of 0", 20, struct.pack("<Q", 0)),
        ("grains of 100 sectors", 20, struct.pack("<Q", 100)),
        ("grains of 1 sector", 20, struct.pack("<Q", 1)),
        ("grains of 1 GiB", 20, struct.pack("<Q", GiB // 512)),
        ("descriptor of 2^60 sectors", 36, struct.pack("<Q", 1 << 60)),
        ("descriptor behind the first grain", 28, struct.pack("<Q", 120)),
        ("tables of 4 Gi entries", 44, b"\xff" * 4),
        ("first grain in sector 2^62", 64, struct.pack("<Q", 1 << 62)),
        ("first grain in sector 0", 64, struct.pack("<Q", 0)),
        ("unclean", 72, b"\1"),
        ("line ends of text mode", 73, b"\r\n\r\n"),
        ("no compression", 77, struct.pack("<H", 0)),
        ("a delta", 512 + GOOD[512:].index(b"parentCID=") + 10, b"12345678"),
        ("another type", 512 + GOOD[512:].index(b"streamO"), b"monolit"),
        ("no descriptor", 512, b"\xff" * 400),
    ],
)
def test_a_hostile_header_is_refused(what: str, offset: int, value: bytes) -> None:
    with pytest.raises(FormatError):
        StreamReader(io.BytesIO(patched(offset, value)), what)


def test_tables_for_more_grains_than_memory_is_meant_for_are_refused() -> None:
    raw = bytearray(GOOD)
    struct.pack_into("<QQ", raw, 12, 64 * TiB // 512, 8)
    with pytest.raises(FormatError, match="tables for"):
        StreamReader(io.BytesIO(bytes(raw)), "many tables")


HOSTILE = {
    "a grain twice": Forge().grain(0).grain(0).end(),
    "a grain that goes back": Forge().grain(2 * GRAIN).grain(GRAIN).end(),
    "a grain between grains": Forge().grain(512).end(),
    "a grain behind the disk": Forge().grain(4 * MiB).end(),
    "a grain at 2^63": Forge().grain(1 << 63).end(),
    "a bomb": Forge().grain(0, zlib.compress(bytes(64 * MiB))).end(),
    "a grain of less": Forge().grain(0, zlib.compress(b"short")).end(),
    "a grain that is no zlib": Forge().grain(0, b"\x99" * 100).end(),
    "a grain that ends early": Forge().grain(0, zlib.compress(b"\x77" * GRAIN)[:-6]).end(),
    "a grain with a wrong sum": Forge().grain(0, zlib.compress(b"\x77" * GRAIN)[:-1] + b"!").end(),
    "a table too many": Forge().metadata(Marker.TABLE, bytes(2048)).metadata(Marker.TABLE, bytes(2048)).end(),
    "a table of 2^50 sectors": Forge().metadata(Marker.TABLE, sectors=1 << 50).end(),
    "a directory of another size": Forge().metadata(Marker.DIRECTORY, bytes(1024)).end(),
    "two directories": Forge().metadata(Marker.DIRECTORY, bytes(512)).end(),
    "metadata of an unknown type": Forge().metadata(77).end(),
    "progress of 2^60 sectors": Forge().metadata(Marker.PROGRESS, sectors=1 << 60).end(),
    "no footer": Forge().grain(0).metadata(Marker.END).raw,
    "a grain that no table lists": Forge().grain(0, listed=False).end(),
    "a directory entry without its table": Forge().grain(0).end(directory=1),
    "a table that no directory lists": Forge().grain(0).end(directory=0),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_streams_are_refused(what: str) -> None:
    with pytest.raises(FormatError):
        read(HOSTILE[what])


def test_a_grain_that_was_left_out_on_the_way_is_found_out() -> None:
    whole = written(b"\x5a" * (3 * GRAIN))
    reader = StreamReader(io.BytesIO(whole), "whole")
    second = list(reader.grains())[1]
    marker = whole.index(struct.pack("<Q", second.start // SECTOR) + struct.pack("<I", len(second.packed)))
    length = -(-(12 + len(second.packed)) // SECTOR) * SECTOR
    with pytest.raises(FormatError):
        read(whole[:marker] + whole[marker + length :])


@pytest.mark.parametrize(
    "cut", [0, 1, 511, 512, 5000, 128 * SECTOR, 128 * SECTOR + 700, len(GOOD) - 512, len(GOOD) - 1]
)
def test_a_stream_that_ends_early_is_refused(cut: int) -> None:
    with pytest.raises(FormatError):
        read(GOOD[:cut])


def test_progress_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.transport.vmdk.stream_reader.PROGRESS_LIMIT", 50)
    forge = Forge()
    for _ in range(51):
        forge.metadata(Marker.PROGRESS)
    with pytest.raises(FormatError, match="metadata"):
        read(forge.end())


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=16), st.integers(0, len(GOOD)))
def test_whatever_is_changed_it_is_refused_or_read_never_worse(at: int, change: bytes, cut: int) -> None:
    raw = patched(at, change)[: len(GOOD) if cut % 3 else cut]
    try:
        assert len(read(raw)) <= 64 * MiB
    except FormatError:
        return
    except MemoryError:
        # a header may tell of a disk as large as they come: the reader took no memory for it, this test did
        assert int.from_bytes(raw[12:20], "little") * 512 > GiB
