"""The qcow2 reader on small images made by hand: what it reads, what it refuses, and that spoiled ones only cost an error."""

import struct
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ChangesUnknown, LanfreeError, ReadFailed, TransportRefused
from proxy.extents import Extent, Kind, normal
from proxy.model import ReasonCode
from proxy.transport import qcow2_format as fmt
from proxy.transport.memory import MemorySource
from proxy.transport.qcow2 import Qcow2Image
from proxy.units import KiB, TiB
from tests.unit.transport.qcow2_builder import CLUSTER, ENTRIES, Image, Marks


def opened(data: bytes) -> Qcow2Image:
    return Qcow2Image(MemorySource(data, identity="naa.1"), mode="san", disk="vda")


def read(image: Qcow2Image, offset: int, length: int) -> tuple[bytes, Sequence[tuple[int, int]]]:
    buffer = bytearray(b"\xee" * length)
    absent = image.read_allocated(offset, memoryview(buffer))
    return bytes(buffer), absent


def patched(data: bytearray, at: int, layout: str, value: int) -> bytearray:
    struct.pack_into(layout, data, at, value)
    return data


def test_each_kind_of_cluster_reads_as_what_it_is() -> None:
    text = bytes(range(256)) * (CLUSTER // 256)
    image = opened(Image(clusters={0: b"a" * CLUSTER}, zero=[1], packed={3: text}).build())
    data, absent = read(image, 0, 4 * CLUSTER)
    assert data == b"a" * CLUSTER + bytes(CLUSTER) + b"\xee" * CLUSTER + text
    assert absent == [(2 * CLUSTER, CLUSTER)]
    assert image.allocation() == [
        Extent(0, CLUSTER),
        Extent(CLUSTER, CLUSTER, Kind.ZERO),
        Extent(3 * CLUSTER, CLUSTER),
    ]


@pytest.mark.parametrize("zstd", [False, True], ids=["zlib", "zstd"])
def test_parts_of_compressed_clusters_are_read(zstd: bool) -> None:
    contents = {n: bytes([n]) * 1000 + bytes(CLUSTER - 1000) for n in range(1, 6)}
    image = opened(Image(packed=contents, zstd=zstd).build())
    whole = b"".join(contents[n] for n in range(1, 6))
    for start, length in ((CLUSTER, 5 * CLUSTER), (CLUSTER + 999, 2), (2 * CLUSTER - 1, CLUSTER + 2)):
        assert read(image, start, length)[0] == whole[start - CLUSTER : start - CLUSTER + length]


def test_adjacent_clusters_are_read_from_the_container_at_once() -> None:
    container = MemorySource(Image(clusters={n: bytes([n]) * CLUSTER for n in range(8)}).build())
    image = Qcow2Image(container, mode="san", disk="vda")
    read(image, 0, CLUSTER)
    before = len(container.faults.calls)
    data, _ = read(image, 100, 8 * CLUSTER - 100)
    assert container.faults.calls[before:] == [("read", 3 * CLUSTER + 100, 8 * CLUSTER - 100)]
    assert data == b"".join(bytes([n]) * CLUSTER for n in range(8))[100:]


def test_the_last_cluster_may_be_cut_where_the_container_ends() -> None:
    data = Image(clusters={0: b"a" * CLUSTER}).build()
    image = opened(bytes(data[: -CLUSTER + 10]))
    assert read(image, 0, CLUSTER)[0] == b"a" * 10 + bytes(CLUSTER - 10)


def test_what_lies_behind_the_end_reads_as_zero_and_is_not_left_to_others() -> None:
    image = opened(Image(size=CLUSTER, clusters={0: b"a" * CLUSTER}).build())
    assert read(image, CLUSTER - 2, 5) == (b"aa\0\0\0", [])


def test_version_2_is_read() -> None:
    image = opened(Image(version=2, clusters={2: b"a" * CLUSTER}).build())
    assert image.allocation() == [Extent(2 * CLUSTER, CLUSTER)]
    assert read(image, 2 * CLUSTER, 3)[0] == b"aaa"


def test_a_header_of_104_bytes_has_no_compression_type() -> None:
    image = opened(patched(Image(packed={1: b"a" * CLUSTER}).build(), 100, ">I", 104))
    assert read(image, CLUSTER, 3)[0] == b"aaa"


def test_extended_entries_hold_subclusters() -> None:
    # 16 KiB clusters by hand: header in 0, L1 in 1, L2 in 2, data in 3; subclusters of 512 bytes
    cluster = 16 * KiB
    data = bytearray(4 * cluster)
    header = Image(size=2 * cluster, incompatible=fmt.INCOMPATIBLE_EXTENDED_L2).build()[:128]
    data[: len(header)] = header
    struct.pack_into(">I", data, 20, 14)
    struct.pack_into(">Q", data, 40, cluster)
    struct.pack_into(">Q", data, cluster, 2 * cluster)
    struct.pack_into(">QII", data, 2 * cluster, 3 * cluster, 1 << 5, 1 << 0 | 1 << 1)  # zero: 5; allocated: 0, 1
    data[3 * cluster : 3 * cluster + 1024] = b"s" * 1024
    image = opened(bytes(data))
    assert image.allocation() == [Extent(0, 1024), Extent(5 * 512, 512, Kind.ZERO)]
    assert read(image, 1000, 100) == (b"s" * 24 + b"\xee" * 76, [(1024, 76)])
    assert read(image, 5 * 512, 512) == (bytes(512), [])


def test_a_dirty_bit_does_not_matter_to_a_reader() -> None:
    image = opened(Image(incompatible=fmt.INCOMPATIBLE_DIRTY, clusters={0: b"a" * CLUSTER}).build())
    assert read(image, 0, 1)[0] == b"a"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image(incompatible=fmt.INCOMPATIBLE_CORRUPT), "image-corrupt"),
        (Image(incompatible=fmt.INCOMPATIBLE_DATA_FILE), "external-data-file"),
        (Image(incompatible=1 << 40), "unknown-feature"),
        (Image(crypt_method=1), "image-encrypted"),
        (Image(crypt_method=2), "image-encrypted"),
        (Image(incompatible=fmt.INCOMPATIBLE_COMPRESSION), "image-damaged"),
        (Image(size=1 << 60), "image-damaged"),
        (Image(l1_offset=100 * CLUSTER), "image-damaged"),
        (Image(l1_offset=CLUSTER + 512), "image-damaged"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(image: Image, reason: str) -> None:
    with pytest.raises(TransportRefused) as refused:
        opened(image.build())
    assert refused.value.reason == reason
    assert "vda" in refused.value.message


def test_an_unknown_feature_is_called_by_its_name() -> None:
    with pytest.raises(TransportRefused, match="time travel"):
        opened(Image(incompatible=1 << 40, feature_names={40: "time travel"}).build())


@pytest.mark.parametrize("data", [b"", b"QFI\xfb", bytes(CLUSTER), b"QFI\xfb" + b"\xff" * 600], ids=repr)
def test_what_is_no_qcow2_image_is_refused(data: bytes) -> None:
    with pytest.raises(TransportRefused) as refused:
        opened(data[:600])
    assert refused.value.reason == "not-qcow2"


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        pytest.param(3 * CLUSTER + 512, "not aligned", id="unaligned"),
        pytest.param(1 << 50, "outside", id="behind-the-end"),
        pytest.param(fmt.L2_COMPRESSED | 1 << 40, "outside", id="compressed-behind-the-end"),
        pytest.param(fmt.L2_COMPRESSED | 2 * CLUSTER, "L2 entry", id="compressed-garbage"),
    ],
)
def test_a_bad_entry_fails_the_reads_that_meet_it(entry: int, what: str) -> None:
    image = opened(Image(clusters={0: b"a" * CLUSTER}, raw_entries={1: entry}).build())
    assert read(image, 0, CLUSTER)[0] == b"a" * CLUSTER
    with pytest.raises(ReadFailed, match=what):
        read(image, CLUSTER, 10)


def test_a_zero_cluster_in_version_2_is_damage() -> None:
    image = opened(Image(version=2, zero=[1]).build())
    with pytest.raises(ReadFailed, match="version 2"):
        image.allocation()
    with pytest.raises(ReadFailed, match="version 2"):
        read(image, CLUSTER, 1)


@pytest.mark.parametrize("offset", [7 * CLUSTER, CLUSTER + 512, 1 << 50], ids=["behind", "unaligned", "far-behind"])
def test_an_l2_table_outside_of_the_container_is_refused(offset: int) -> None:
    with pytest.raises(TransportRefused, match="L1 entry"):
        opened(patched(Image().build(), CLUSTER, ">Q", offset))


def test_tables_that_are_shared_are_refused_since_they_make_small_files_map_as_huge_ones() -> None:
    data = Image(size=2 * ENTRIES * CLUSTER).build()
    with pytest.raises(TransportRefused, match="share"):
        opened(patched(data, CLUSTER + 8, ">Q", 2 * CLUSTER))


def test_a_zstd_frame_that_claims_gigabytes_costs_none() -> None:
    # magic, single segment with a content size of 2^62 bytes, one raw block of 3 bytes
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 62) + b"\x19\x00\x00abc"
    data = Image(zstd=True, packed={0: b"x" * CLUSTER}).build()
    data[3 * CLUSTER + 8 : 3 * CLUSTER + 8 + len(frame)] = frame
    with pytest.raises(ReadFailed, match="L2 entry"):
        read(opened(data), 0, CLUSTER)


# --- bitmaps ---


def test_a_bitmap_marks_its_bits() -> None:
    marks = Marks("mark", bits=[0, 1, 2, 9, 15], granularity_bits=9)
    image = opened(Image(bitmaps=[Marks("other"), marks]).build())
    assert image.changed("mark") == [Extent(0, 3 * 512), Extent(9 * 512, 512), Extent(15 * 512, 512)]
    assert [(b.name, b.granularity, b.auto, b.in_use) for b in image.bitmaps()] == [
        ("other", 64 * KiB, True, False),
        ("mark", 512, True, False),
    ]


def test_a_bitmap_table_may_say_all_ones() -> None:
    image = opened(Image(bitmaps=[Marks("mark", ones=True)]).build())
    assert image.changed("mark") == [Extent(0, 64 * CLUSTER)]


def test_bits_behind_the_disk_are_not_told() -> None:
    image = opened(Image(size=5 * 512, bitmaps=[Marks("mark", bits=[4, 5, 6], granularity_bits=9)]).build())
    assert image.changed("mark") == [Extent(4 * 512, 512)]


LOST, INCONSISTENT = ReasonCode.TRACKING_LOST, ReasonCode.TRACKING_INCONSISTENT


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        pytest.param(Image(), LOST, id="no-bitmaps"),
        pytest.param(Image(bitmaps=[Marks("other")]), LOST, id="another-one"),
        pytest.param(Image(bitmaps=[Marks("mark", flags=fmt.BITMAP_IN_USE)]), INCONSISTENT, id="in-use"),
        pytest.param(Image(bitmaps=[Marks("mark")], autoclear=0), INCONSISTENT, id="autoclear"),
        pytest.param(Image(bitmaps=[Marks("mark", kind=2)]), INCONSISTENT, id="another-type"),
        pytest.param(Image(bitmaps=[Marks("mark", extra=b"12345678")]), INCONSISTENT, id="extra-data"),
        pytest.param(Image(bitmaps=[Marks("mark", granularity_bits=63)]), INCONSISTENT, id="granularity"),
        pytest.param(Image(bitmaps=[Marks("mark", table_entries=2)]), ReasonCode.DISK_RESIZED, id="resized"),
    ],
)
def test_a_bitmap_that_cannot_answer_says_why(image: Image, reason: ReasonCode) -> None:
    with pytest.raises(ChangesUnknown) as unknown:
        opened(image.build()).changed("mark")
    assert unknown.value.reason == reason


def test_extra_data_that_says_it_is_compatible_does_not_matter() -> None:
    flags = fmt.BITMAP_EXTRA_COMPATIBLE
    image = opened(Image(bitmaps=[Marks("mark", bits=[0], flags=flags, extra=b"12345678")]).build())
    assert image.changed("mark") == [Extent(0, 64 * KiB)]


# --- many threads, closing ---


def test_many_threads_read_right_bytes() -> None:
    contents = {n: bytes([n + 1]) * CLUSTER for n in range(64)}
    packed = {n: contents.pop(n) for n in range(0, 64, 3)}
    image = opened(Image(clusters=contents, packed=packed).build())
    wrong: list[int] = []

    def reader(seed: int) -> None:
        for i in range(60):
            at = (seed * 37 + i * 101) % 63 * CLUSTER + 5
            if (
                read(image, at, CLUSTER)[0]
                != bytes([at // CLUSTER + 1]) * (CLUSTER - 5) + bytes([at // CLUSTER + 2]) * 5
            ):
                wrong.append(at)

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_closes_the_container_and_reads_fail_afterwards() -> None:
    container = MemorySource(Image().build())
    image = Qcow2Image(container, mode="san", disk="vda")
    image.close()
    image.close()
    assert container.closed
    with pytest.raises(ReadFailed, match="closed"):
        read(image, 0, 10)


# --- fuzz: whatever is spoiled, only our own errors come out ---

SOUND = bytes(
    Image(
        size=3 * ENTRIES * CLUSTER,
        clusters={n: bytes([n]) * CLUSTER for n in (0, 1, 5)},
        zero=[2, 3],
        packed={7: b"z" * CLUSTER},
        bitmaps=[Marks("mark", bits=[1, 3])],
        backing="base",
        feature_names={5: "five"},
    ).build()
)
spots = st.one_of(
    st.integers(0, 400), st.integers(CLUSTER, CLUSTER + 64), st.integers(2 * CLUSTER, 2 * CLUSTER + 128),
    st.integers(3 * CLUSTER, len(SOUND) - 1),
)  # fmt: skip
values = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))


@pytest.mark.slow
@given(spoiled=st.lists(st.tuples(spots, values), min_size=1, max_size=12), cut=st.integers(0, len(SOUND)))
@settings(max_examples=150, deadline=None)
def test_a_spoiled_image_costs_an_error_and_nothing_else(spoiled: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(SOUND)
    for at, value in spoiled:
        data[at] = value
    try_everything(bytes(data[: max(cut, len(SOUND) - cut)]))


@pytest.mark.slow
@given(words=st.lists(st.tuples(st.integers(0, 100), st.integers(0, (1 << 64) - 1)), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_spoiled_words_of_header_and_tables_cost_an_error_and_nothing_else(words: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND)
    for place, value in words:
        at = place * 8 if place < 20 else CLUSTER + (place - 20) * 8 if place < 24 else 2 * CLUSTER + (place - 24) * 8
        struct.pack_into(">Q", data, at, value)
    try_everything(bytes(data))


def try_everything(data: bytes) -> None:
    """Opens, maps, reads both ends and asks for changes; what is told must at least be well-formed."""
    try:
        image = opened(data)
    except LanfreeError as error:
        assert isinstance(error, TransportRefused)
        return
    try:
        allocation = image.allocation()
        assert list(allocation) == normal(allocation)
        assert not allocation or allocation[-1].end <= image.size
    except LanfreeError as error:
        assert isinstance(error, ReadFailed)
    for start in (0, max(0, image.size - 12 * CLUSTER)):
        try:
            for low, length in read(image, start, min(12 * CLUSTER, image.size - start))[1]:
                assert start <= low < low + length <= image.size
        except LanfreeError as error:
            assert isinstance(error, ReadFailed)
    try:
        assert all(0 <= e.start < e.end <= image.size for e in image.changed("mark"))
    except LanfreeError as error:
        assert isinstance(error, ChangesUnknown)


def test_the_largest_disk_that_a_header_may_claim_is_only_as_large_as_its_l1_table() -> None:
    with pytest.raises(TransportRefused) as refused:
        opened(Image(size=1024 * TiB).build())
    assert refused.value.reason == "image-damaged"
