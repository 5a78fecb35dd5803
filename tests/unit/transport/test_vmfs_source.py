"""Files of a volume as block sources: thin, scattered, lazily zeroed, doubly indirect, in large blocks, over two LUNs.

::

    thin        |D|.|.|D|D|.|        blocks that hold data, and holes
    lazy        |D|z|z|D|            allocated; z reads as zero though somebody's bytes are there
    scattered   |4|2|7|1|            places in random order
    large       |LLLL|D|             512 MiB in one block
"""

import struct
import threading

import numpy as np
import pytest

from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused
from proxy.extents import Extent, Kind, is_map
from proxy.model import ChangeId
from proxy.transport.vmfs import ZERO_PLACE, FilePlace, Subject, VmfsFile, VmfsReason, open_datastore
from proxy.transport.vmfs.lun import CACHED_PAGES, PAGE, Metadata
from proxy.units import GiB, MiB, TiB
from tests.unit.transport.vmfs_builder import DATA, HOLE, LARGE, ZEROED, Disk, VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import SparseLun, VolumeOnLuns

# Datastores of many shapes are built for it, sector by sector.
pytestmark = pytest.mark.slow

SUBJECT = Subject("san", "scsi0:0")
EDGE = 3 * 512


def builder(version: int = 6, extents: tuple[int, ...] = (1,), tables: int = 1) -> VmfsBuilder:
    return VmfsBuilder(VolumeOnLuns(extents, version=version), version=version, tables=tables)


def opened(made: VmfsBuilder, path: str = "disk") -> VmfsFile:
    return VmfsFile(open_datastore(made.volume.luns, SUBJECT), path)


def read(source: VmfsFile, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xa5") * length
    source.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def check_around(source: VmfsFile, disk: Disk, block: int) -> None:
    """Reads over both edges of a block."""
    for edge in (block * MiB, (block + 1) * MiB):
        low, high = max(0, edge - EDGE), min(disk.size, edge + EDGE)
        if low < high:
            assert read(source, low, high - low) == disk.expected(low, high - low)


def by_kind(source: VmfsFile) -> list[tuple[int, int, str]]:
    """(first block, blocks, kind)."""
    return [(e.start // MiB, -(-e.length // MiB), e.kind) for e in source.extents()]


both = pytest.mark.parametrize("version", [5, 6])


@both
@pytest.mark.parametrize("scattered", [True, False], ids=["scattered", "contiguous"])
@pytest.mark.parametrize(
    "kinds",
    [
        [DATA],
        [HOLE, DATA],
        [DATA, HOLE, HOLE, DATA, DATA, HOLE],
        [DATA, ZEROED, ZEROED, DATA],
        [ZEROED] * 3,
        [HOLE] * 3,
    ],
    ids=["thick-1", "hole-first", "thin", "lazy", "all-zeroed", "all-holes"],
)
def test_a_disk_reads_as_it_was_written(version: int, kinds: list[int], scattered: bool) -> None:
    made = builder(version)
    disk = made.disk("disk", len(kinds) * MiB - 512, kinds, scattered=scattered)
    made.finish()
    source = opened(made)
    assert is_map(source.extents(), disk.size)
    assert read(source, 0, disk.size) == disk.expected(0, disk.size)
    for extent in source.extents():
        blocks = disk.classes[extent.start // MiB : -(-extent.end // MiB)]
        assert np.all((blocks == DATA) == (extent.kind is Kind.DATA))


@both
def test_each_level_of_pointers_holds_data_where_it_was_put(version: int) -> None:
    """Direct, one level, two levels: blocks at both ends of the disk and on both sides of each table's end."""
    for blocks in (256, 8192 * 2 + 5, 8192 * 321 if version == 6 else 1024 * 257):
        per_table = 8192 if version == 6 else 1024
        chosen = sorted({0, 1, per_table - 1, per_table, blocks // 2, blocks - 1} & set(range(blocks)))
        kinds = np.zeros(blocks, np.uint8)
        kinds[chosen] = DATA
        made = builder(version)
        disk = made.disk("disk", blocks * MiB - 1024, kinds)
        made.finish()
        source = opened(made)
        for block in chosen:
            check_around(source, disk, block)
        found = {start + i for start, count, kind in by_kind(source) if kind == Kind.DATA for i in range(count)}
        assert found == set(chosen)
        assert is_map(source.extents(), disk.size)


def test_contiguous_blocks_are_one_place_and_scattered_ones_several() -> None:
    made = builder()
    made.disk("straight", 8 * MiB, [DATA] * 8, scattered=False)
    made.disk("mixed", 8 * MiB, [DATA] * 8, scattered=True)
    made.finish()
    (place,) = opened(made, "straight").places()
    assert (place.start, place.length, place.lun) == (0, 8 * MiB, 0)
    mixed = list(opened(made, "mixed").places())
    assert len(mixed) > 4
    assert sorted(p.offset for p in mixed)[0] == place.offset + 8 * MiB


def test_places_cover_the_asked_range_with_data_and_nothing() -> None:
    made = builder()
    made.disk("disk", 6 * MiB, [HOLE, DATA, ZEROED, DATA], scattered=False)
    made.finish()
    places = list(opened(made).places(MiB // 2, 5 * MiB))
    base = places[1].offset
    assert places == [
        FilePlace(MiB // 2, MiB // 2, ZERO_PLACE, 0),
        FilePlace(MiB, MiB, 0, base),
        FilePlace(2 * MiB, MiB, ZERO_PLACE, 0),
        FilePlace(3 * MiB, MiB, 0, base + MiB),
        FilePlace(4 * MiB, MiB + MiB // 2, ZERO_PLACE, 0),
    ]
    assert list(opened(made).places(2 * MiB + 5, 7)) == [FilePlace(2 * MiB + 5, 7, ZERO_PLACE, 0)]
    assert list(opened(made).places(7, 0)) == []


@both
def test_a_disk_over_two_luns_tells_which_part_is_where(version: int) -> None:
    made = builder(version, (1, 1))
    disk = made.disk("disk", 200 * MiB, [DATA] * 200, scattered=False)
    made.finish()
    source = opened(made)
    first, second = source.places()
    assert (first.lun, second.lun) == (0, 1)
    assert second.start == first.length
    check_around(source, disk, first.length // MiB)
    for place in (first, second):
        at_lun = made.volume.luns[place.lun].read(place.offset, 512)
        assert at_lun == disk.expected(place.start, 512)


def test_large_blocks_are_read_and_told() -> None:
    made = builder(extents=(8,))
    disk = made.disk("disk", 1025 * MiB, [LARGE] * 512 + [DATA, HOLE] + [HOLE] * 510 + [DATA])
    plain = made.disk("plain", 5 * MiB, [DATA])
    made.finish()
    source = opened(made)
    for block in (0, 1, 511, 512, 513, 1024):
        check_around(source, disk, block)
    assert next(source.places()).length == 512 * MiB
    assert source.map.uses_large_blocks()
    assert not opened(made, plain.name).map.uses_large_blocks()


def test_many_threads_read_what_one_reads() -> None:
    made = builder()
    disk = made.disk("disk", 24 * MiB, [DATA, HOLE, ZEROED, DATA] * 6)
    made.finish()
    source = opened(made)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(40):
            offset = (seed * 7919 + step * 104729) * 512 % (disk.size - 2 * MiB)
            if read(source, offset, 2 * MiB) != disk.expected(offset, 2 * MiB):
                wrong.append(offset)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_reads_outside_and_after_closing_fail() -> None:
    made = builder()
    made.disk("disk", 3 * MiB, [DATA])
    made.finish()
    with opened(made) as source:
        for offset, length in ((-1, 2), (3 * MiB - 1, 2), (4 * MiB, 0)):
            with pytest.raises(ReadFailed):
                read(source, offset, length)
        with pytest.raises(ChangesUnknown):
            source.changed(ChangeId("1"))
    with pytest.raises(ReadFailed):
        read(source, 0, 1)
    source.close()


def test_an_empty_file_has_no_extents() -> None:
    made = builder()
    made.file("disk", b"")
    made.finish()
    assert opened(made).extents() == []
    assert list(opened(made).places()) == []


# fingerprints


def pointer_at(made: VmfsBuilder, block: int) -> int:
    """Volume offset of the pointer of a direct block."""
    return made.at["disk"] + made.geometry.pointers_at + block * made.geometry.pointer_size


@both
@pytest.mark.parametrize("blocks", [4, 2000, 8192 * 330])
def test_a_fingerprint_changes_with_the_map_and_with_nothing_else(version: int, blocks: int) -> None:
    made = builder(version)
    kinds = [DATA, HOLE, ZEROED, DATA]
    made.disk("disk", blocks * MiB, kinds)
    other = made.disk("other", blocks * MiB, kinds)
    made.finish()
    source = opened(made)
    before = source.fingerprint()
    made.volume.write(made.at["disk"] + made.geometry.facts_at + 0x2C, struct.pack("<III", 1, 2, 3))  # times
    assert source.fingerprint() == before
    assert opened(made, other.name).fingerprint() != before
    at = pointer_at(made, 0)
    for _level in range({4: 0, 2000: 1}.get(blocks, 2)):
        at = source.fs.resolve(int.from_bytes(made.volume.read(at, made.geometry.pointer_size), "little"))
    made.volume.write(at, made.volume.read(at + 3 * made.geometry.pointer_size, made.geometry.pointer_size))
    assert source.fingerprint() != before


def test_a_file_that_was_deleted_meanwhile_has_no_fingerprint() -> None:
    made = builder()
    made.disk("disk", 4 * MiB, [DATA])
    made.finish()
    source = opened(made)
    made.volume.write(made.at["disk"] + 4096 + 4, struct.pack("<I", 2))
    with pytest.raises(TransportRefused) as refused:
        source.fingerprint()
    assert refused.value.reason == VmfsReason.DESCRIPTOR_CHANGED


# damage


@pytest.mark.parametrize(
    ("pointer", "reason"),
    [
        (1 | 0x7FFFFFFF << 15, VmfsReason.BLOCK_OUTSIDE),
        (1 | 1 << 15, VmfsReason.BLOCK_OUTSIDE),
        (3, VmfsReason.UNKNOWN_ADDRESS),
        (1 | 0x0F << 7, VmfsReason.PARTIALLY_ZEROED),
        (7, VmfsReason.LARGE_BLOCK_LAYOUT),
    ],
)
def test_a_pointer_that_is_not_understood_is_never_a_hole(pointer: int, reason: VmfsReason) -> None:
    made = builder()
    made.disk("disk", 4 * MiB, [DATA] * 4)
    made.finish()
    made.volume.write(pointer_at(made, 2), struct.pack("<Q", pointer))
    source = opened(made)
    with pytest.raises(TransportRefused) as refused:
        source.extents()
    assert refused.value.reason == reason
    with pytest.raises(ReadFailed):
        read(source, 0, 512)


@both
@pytest.mark.parametrize("field", [0x24, 0x48], ids=["allocated", "to-be-zeroed"])
def test_a_map_with_another_number_of_blocks_than_the_descriptor_counts_is_refused(version: int, field: int) -> None:
    made = builder(version)
    made.disk("disk", 4 * MiB, [DATA, ZEROED, HOLE, DATA])
    made.finish()
    made.volume.write(made.at["disk"] + made.geometry.facts_at + field, struct.pack("<I", 7))
    with pytest.raises(TransportRefused) as refused:
        opened(made).extents()
    assert refused.value.reason == VmfsReason.BLOCK_COUNT


def test_a_file_in_units_of_another_size_is_refused() -> None:
    made = builder()
    made.disk("disk", 4 * MiB, [DATA])
    made.finish()
    made.volume.write(made.at["disk"] + made.geometry.facts_at + 0x89, b"\x1d")  # 512 MiB
    with pytest.raises(TransportRefused) as refused:
        opened(made)
    assert refused.value.reason == VmfsReason.UNKNOWN_LAYOUT


@both
@pytest.mark.parametrize("blocks", [2000, 8192 * 330], ids=["one-level", "two-levels"])
def test_tables_that_are_shared_or_lead_astray_are_refused(version: int, blocks: int) -> None:
    made = builder(version)
    kinds = np.zeros(blocks, np.uint8)
    kinds[[0, blocks - 1]] = DATA
    made.disk("disk", blocks * MiB, kinds)
    made.finish()
    size = made.geometry.pointer_size
    first = made.volume.read(pointer_at(made, 0), size)
    cases = [(1, first)] if blocks == 2000 and version == 5 else []
    cases += [(0, (1 | 1 << 15).to_bytes(size, "little")), (0, (2 | 0x3FFFFF << 6).to_bytes(size, "little"))]
    reasons = {VmfsReason.SHARED_POINTERS, VmfsReason.UNKNOWN_ADDRESS, VmfsReason.BLOCK_OUTSIDE}
    for block, pointer in cases:
        made.volume.write(pointer_at(made, block), pointer)
        with pytest.raises(TransportRefused) as refused:
            opened(made).extents()
        assert refused.value.reason in reasons
        made.volume.write(pointer_at(made, block), first if block == 0 else bytes(size))


def test_a_table_of_tables_that_names_itself_is_refused() -> None:
    made = builder()
    made.disk("disk", 8192 * 330 * MiB, [DATA])
    made.finish()
    top = made.volume.read(pointer_at(made, 0), 8)
    fs = open_datastore(made.volume.luns, SUBJECT)
    made.volume.write(fs.resolve(int.from_bytes(top, "little")), top * 2)
    with pytest.raises(TransportRefused) as refused:
        opened(made)
    assert refused.value.reason == VmfsReason.SHARED_POINTERS


# figures


def test_mapping_a_fragmented_thin_disk_of_1_tib_reads_each_table_once_and_little_else() -> None:
    blocks = TiB // MiB
    kinds = np.random.default_rng(1).integers(0, 2, blocks).astype(np.uint8)
    made = builder(extents=(2200,))
    made.disk("disk", TiB, kinds, content=False)
    made.finish()
    source = opened(made)
    for lun in made.volume.luns:
        lun.reads.clear()
    extents = source.extents()
    assert sum(e.length for e in extents if e.kind is Kind.DATA) == int(kinds.sum()) * MiB
    assert is_map(extents, TiB)
    assert sum(length for lun in made.volume.luns for _offset, length in lun.reads) <= (128 + 1) * 64 * 1024 * 2


def test_a_sparse_disk_of_60_tib_is_mapped_by_its_few_tables() -> None:
    made = builder()
    kinds = np.zeros(50 * TiB // MiB, np.uint8)
    kinds[[0, 20_000_000, -1]] = DATA
    disk = made.disk("disk", 50 * TiB, kinds)
    made.finish()
    source = opened(made)
    assert [e.start for e in source.extents() if e.kind is Kind.DATA] == [0, 20_000_000 * MiB, 50 * TiB - MiB]
    check_around(source, disk, 20_000_000)
    assert sum(len(lun.reads) for lun in made.volume.luns) < 60


def test_the_cache_of_metadata_is_bounded() -> None:
    lun = SparseLun(4 * GiB)
    metadata = Metadata(lun, SUBJECT)
    for page in range(2 * CACHED_PAGES):
        metadata.read(page * PAGE, 8, "test")
    lun.reads.clear()
    metadata.read(CACHED_PAGES * PAGE, 8, "the oldest that is kept")
    assert lun.reads == []
    metadata.read((CACHED_PAGES - 1) * PAGE, 8, "one more is not")
    assert len(lun.reads) == 1
    lun.reads.clear()
    metadata.read((2 * CACHED_PAGES - 1) * PAGE + 8, 8, "test")
    assert lun.reads == []
    metadata.forget()
    metadata.read((2 * CACHED_PAGES - 1) * PAGE + 8, 8, "test")
    assert len(lun.reads) == 1


@pytest.mark.parametrize(("offset", "length"), [(-1, 4), (4 * MiB - 1, 2), (0, 5 * MiB), (2**70, 1)])
def test_metadata_outside_of_the_device_is_refused(offset: int, length: int) -> None:
    with pytest.raises(TransportRefused) as refused:
        Metadata(SparseLun(4 * MiB), SUBJECT).read(offset, length, "test")
    assert refused.value.reason == VmfsReason.BLOCK_OUTSIDE


def test_extents_are_those_of_the_product() -> None:
    made = builder()
    made.disk("disk", 3 * MiB, [DATA, HOLE, DATA])
    made.finish()
    assert opened(made).extents() == [Extent(0, MiB), Extent(MiB, MiB, Kind.ZERO), Extent(2 * MiB, MiB)]
