"""Our qcow2 reader against QEMU: whatever qemu-io wrote, we read what ``qemu-img convert`` reads."""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.command import run
from proxy.errors import ChangesUnknown, TransportRefused
from proxy.extents import Extent, Kind, is_map, normal
from proxy.model import FileAddress, Format, FrozenDisk, Layer, LunAddress, ReasonCode, Tracking
from proxy.ports import BlockSource
from proxy.transport.layers import open_layers
from proxy.transport.memory import MemorySource
from proxy.transport.raw import FileSource
from proxy.transport.san import SanFabric, SanTransport
from proxy.units import GiB, KiB, MiB, TiB
from tests.integration.transport.nbd_servers import qemu_nbd, served
from tests.integration.transport.tgt_array import BACKUP, HOSTS, Array

pytestmark = pytest.mark.tools

SIZE = 6 * MiB + 17 * 512  # ends inside of a cluster whatever the cluster size

OPTIONS = [
    pytest.param("compat=0.10", id="version-2"),
    pytest.param("cluster_size=512", id="clusters-of-512"),
    pytest.param("cluster_size=4k", id="clusters-of-4k"),
    pytest.param("cluster_size=64k", id="clusters-of-64k"),
    pytest.param("cluster_size=2M", id="clusters-of-2M"),
    pytest.param("compression_type=zstd", id="zstd"),
    pytest.param("compression_type=zstd,cluster_size=2M", id="zstd-clusters-of-2M"),
    pytest.param("cluster_size=4k,compression_type=zstd", id="zstd-clusters-of-4k"),
    pytest.param("extended_l2=on", id="extended-l2"),
    pytest.param("extended_l2=on,cluster_size=16k", id="extended-l2-clusters-of-16k"),
    pytest.param("preallocation=metadata", id="preallocated-metadata"),
    pytest.param("preallocation=metadata,extended_l2=on", id="preallocated-metadata-extended-l2"),
    pytest.param("preallocation=falloc", id="preallocated"),
    pytest.param("lazy_refcounts=on", id="lazy-refcounts"),
]

sectors = st.integers(0, SIZE // 512 - 1)
operations = st.lists(
    st.tuples(
        st.sampled_from(["write", "zero", "unmap", "discard", "compress"]),
        sectors,
        st.integers(1, 3000),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=14,
)
Operation = tuple[str, int, int, int]


def qemu_io_words(operation: Operation, cluster: int, *, version_2: bool) -> list[str]:
    """One operation as a qemu-io command, cut to the disk; compressed writes are made whole clusters."""
    name, sector, count, pattern = operation
    start, length = sector * 512, min(count * 512, SIZE - sector * 512)
    if name == "compress":
        start -= start % cluster
        length = min(-(-length // cluster) * cluster, SIZE - start)
        return ["-c", f"write -c -P {pattern} {start} {length}"]
    if name == "discard":
        return ["-c", f"discard {start} {length}"]
    if name == "write" or version_2:  # version 2 has no zero clusters: QEMU refuses them or writes zeroes
        return ["-c", f"write -P {pattern} {start} {length}"]
    return ["-c", f"write -z{' -u' if name == 'unmap' else ''} {start} {length}"]


def create(image: Path, options: str, size: int = SIZE, *, backing: tuple[Path, str] | None = None) -> None:
    words = ["-b", str(backing[0]), "-F", backing[1]] if backing else []
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, *words, image, str(size)], timeout=60)


def write(image: Path, written: Sequence[Operation], options: str) -> None:
    """Compressed writes first, since QEMU refuses them over what is allocated; a refused one just changes nothing."""
    cluster = json.loads(run(["qemu-img", "info", "--output=json", image], timeout=60).text)["cluster-size"]
    version_2 = "compat=0.10" in options
    ordered = sorted(written, key=lambda one: one[0] != "compress")
    words = [word for one in ordered for word in qemu_io_words(one, cluster, version_2=version_2)]
    run(["qemu-io", "-f", "qcow2", "-d", "unmap", *words, image], timeout=120, check=False)


def truth(image: Path) -> bytes:
    """The disk as QEMU reads it."""
    raw = image.with_suffix(".raw")
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], timeout=120)
    data = raw.read_bytes()
    raw.unlink()
    return data


def opened(*images: Path, size: int = SIZE, tracking: Tracking = Tracking.NONE) -> BlockSource:
    """The chain, top first, from memory; ``.raw`` files are raw."""
    layers = tuple(Layer(FileAddress(str(i)), Format.RAW if i.suffix == ".raw" else Format.QCOW2) for i in images)

    def container(layer: Layer) -> BlockSource:
        assert isinstance(layer.location, FileAddress)
        return MemorySource(Path(layer.location.path).read_bytes(), can_report_extents=False)

    return open_layers(FrozenDisk("vda", size, layers, tracking), container, "raw")


def assert_reads_as(source: BlockSource, expected: bytes, pieces: Sequence[tuple[int, int]]) -> None:
    """Whole, in odd pieces, and through the map: ZERO is zero."""
    whole = bytearray(b"\xee" * source.size)
    source.read_into(0, memoryview(whole))
    assert whole == expected
    for sector, count in pieces:
        start = sector * 512 + 3
        piece = bytearray(b"\xee" * min(count * 512, len(expected) - start))
        source.read_into(start, memoryview(piece))
        assert piece == expected[start : start + len(piece)]
    extents = source.extents()
    assert is_map(extents, source.size)
    assert list(extents) == normal(extents)
    for e in extents:
        assert e.kind is Kind.DATA or not any(expected[e.start : e.end])


@contextmanager
def workplace() -> Iterator[Path]:
    """Hypothesis runs many examples in one test, so that ``tmp_path`` is not enough."""
    with tempfile.TemporaryDirectory(prefix="lanfree-qcow2-") as directory:
        yield Path(directory)


def quick(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("options", OPTIONS)
@given(written=operations, pieces=st.lists(st.tuples(sectors, st.integers(1, 3000)), max_size=5))
@quick(8)
def test_we_read_what_qemu_reads(options: str, written: list[Operation], pieces: list[tuple[int, int]]) -> None:
    with workplace() as place:
        image = place / "a.qcow2"
        create(image, options)
        write(image, written, options)
        with opened(image) as source:
            assert_reads_as(source, truth(image), pieces)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        pytest.param("cluster_size=64k", "cluster_size=4k", id="small-over-large-clusters"),
        pytest.param("cluster_size=4k", "extended_l2=on", id="subclusters-over-clusters"),
        pytest.param("compression_type=zstd", "cluster_size=2M", id="large-over-compressed"),
        pytest.param("raw", "cluster_size=64k", id="over-raw"),
    ],
)
@given(under=operations, above=operations, pieces=st.lists(st.tuples(sectors, st.integers(1, 3000)), max_size=5))
@quick(8)
def test_a_chain_reads_as_qemu_reads_it(
    lower: str, upper: str, under: list[Operation], above: list[Operation], pieces: list[tuple[int, int]]
) -> None:
    with workplace() as place:
        base, top = place / "base.qcow2", place / "top.qcow2"
        create(base, "cluster_size=64k" if lower == "raw" else lower)
        write(base, under, lower)
        if lower == "raw":
            raw = place / "base.raw"
            raw.write_bytes(truth(base))
            base = raw
        create(top, upper, backing=(base, base.suffix.removeprefix(".")))
        write(top, above, upper)
        with opened(top, base) as source:
            assert_reads_as(source, truth(top), pieces)


def test_nothing_shines_through_behind_the_end_of_a_shorter_layer(tmp_path: Path) -> None:
    base, middle, top = tmp_path / "base.qcow2", tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    create(base, "cluster_size=64k", 4 * MiB)
    run(["qemu-io", "-c", "write -P 7 0 4M", base], timeout=60)
    create(middle, "cluster_size=64k", 1 * MiB, backing=(base, "qcow2"))
    create(top, "cluster_size=64k", 4 * MiB, backing=(middle, "qcow2"))
    with opened(top, middle, base, size=4 * MiB) as source:
        assert_reads_as(source, truth(top), [])
        assert source.extents() == [Extent(0, MiB), Extent(MiB, 3 * MiB, Kind.ZERO)]


def test_the_active_layer_is_read_and_not_an_internal_snapshot(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    create(image, "cluster_size=64k")
    run(["qemu-io", "-c", "write -P 1 0 1M", image], timeout=60)
    run(["qemu-img", "snapshot", "-c", "old", image], timeout=60)
    run(["qemu-io", "-c", "write -P 2 64k 64k", "-c", "write -z 128k 64k", image], timeout=60)
    with opened(image) as source:
        assert_reads_as(source, truth(image), [(0, 600)])


def test_the_map_is_as_fine_as_qemu_tells_it(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    create(image, "cluster_size=64k")
    run(["qemu-io", "-c", "write -P 1 64k 128k", "-c", "write -P 1 1M 64k", "-c", "write -z 2M 1M", image], timeout=60)
    told = json.loads(run(["qemu-img", "map", "--output=json", image], timeout=60).text)
    kinds = {False: Kind.DATA, True: Kind.ZERO}
    with opened(image) as source:
        assert source.extents() == normal(Extent(e["start"], e["length"], kinds[e["zero"]]) for e in told)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param(["-o", "data_file={place}/data.raw"], "external-data-file", id="external-data-file"),
        pytest.param(
            # Not LUKS, whose key slots qemu-img cannot always time on a busy machine: the header says the same of both.
            ["--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s"],
            "image-encrypted",
            id="encrypted",
        ),
    ],
)
def test_what_only_qemu_can_read_is_refused_with_its_reason(tmp_path: Path, words: list[str], reason: str) -> None:
    image = tmp_path / "a.qcow2"
    options = [word.format(place=tmp_path) for word in words]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *options, image, "1M"], timeout=120)
    with pytest.raises(TransportRefused) as refused:
        opened(image, size=MiB)
    assert refused.value.reason == reason


# --- bitmaps ---


def bitmap_of_qemu(image: Path, name: str, size: int) -> list[Extent]:
    """What qemu-nbd tells about a bitmap over NBD."""
    handle = nbd.NBD()
    handle.add_meta_context(f"qemu:dirty-bitmap:{name}")
    found: list[Extent] = []
    position = 0
    with served(qemu_nbd(image, "-r", "-B", name, form="qcow2")) as server:
        handle.connect_uri(server.uri())
        while position < size:
            told: list[int] = []
            handle.block_status(
                size - position, position, lambda _context, _offset, e, _error, told=told: told.extend(e) or 0
            )
            for length, flags in zip(told[::2], told[1::2], strict=True):
                if flags & 1:
                    found.append(Extent(position, length))
                position += length
        handle.shutdown()
    return normal(found)


@pytest.mark.parametrize("granularity", ["512", "64k", "2M"])
@given(before=operations, after=operations)
@quick(5)
def test_a_bitmap_marks_what_qemu_says_it_marks(
    granularity: str, before: list[Operation], after: list[Operation]
) -> None:
    with workplace() as place:
        image = place / "a.qcow2"
        create(image, "cluster_size=4k")
        write(image, before, "")
        run(["qemu-img", "bitmap", "--add", "-g", granularity, image, "older"], timeout=60)
        run(["qemu-img", "bitmap", "--add", "-g", granularity, image, "mark"], timeout=60)
        write(image, after, "")
        with opened(image, tracking=Tracking.IMAGE) as source:
            changed = source.changed("mark")
            assert changed == bitmap_of_qemu(image, "mark", SIZE)
            assert all(e.kind is Kind.DATA for e in changed)


def test_a_disabled_bitmap_marks_nothing_more(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    create(image, "cluster_size=64k", 8 * MiB)
    run(["qemu-img", "bitmap", "--add", image, "mark"], timeout=60)
    run(["qemu-io", "-c", "write -P 1 0 64k", image], timeout=60)
    run(["qemu-img", "bitmap", "--disable", image, "mark"], timeout=60)
    run(["qemu-io", "-c", "write -P 1 1M 64k", image], timeout=60)
    with opened(image, size=8 * MiB, tracking=Tracking.IMAGE) as source:
        assert source.changed("mark") == [Extent(0, 64 * KiB)]
        with pytest.raises(ChangesUnknown) as unknown:
            source.changed("unheard-of")
        assert unknown.value.reason == ReasonCode.TRACKING_LOST


def test_a_bitmap_that_a_killed_writer_left_is_not_believed(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    create(image, "cluster_size=64k", 8 * MiB)
    run(["qemu-img", "bitmap", "--add", image, "mark"], timeout=60)
    handle = nbd.NBD()
    with served(qemu_nbd(image, form="qcow2")) as server:
        handle.connect_uri(server.uri())
        handle.pwrite(b"x" * 4096, 0)
        handle.flush()
        server.process.kill()
    with opened(image, size=8 * MiB, tracking=Tracking.IMAGE) as source:
        with pytest.raises(ChangesUnknown) as unknown:
            source.changed("mark")
        assert unknown.value.reason == ReasonCode.TRACKING_INCONSISTENT
        first = bytearray(4096)
        source.read_into(0, memoryview(first))
        assert first == b"x" * 4096


def test_an_overlay_without_the_bitmap_counts_as_changed_with_all_it_holds(tmp_path: Path) -> None:
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    create(base, "cluster_size=64k", 8 * MiB)
    run(["qemu-img", "bitmap", "--add", base, "mark"], timeout=60)
    run(["qemu-io", "-c", "write -P 1 0 64k", base], timeout=60)
    create(top, "cluster_size=64k", 8 * MiB, backing=(base, "qcow2"))
    run(["qemu-io", "-c", "write -P 1 1M 64k", "-c", "write -z 2M 64k", top], timeout=60)
    with opened(top, base, size=8 * MiB, tracking=Tracking.IMAGE) as source:
        assert source.changed("mark") == [Extent(at, 64 * KiB) for at in (0, MiB, 2 * MiB)]


def test_tracking_by_layer_tells_all_that_the_top_layer_holds(tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"\x01" * 8 * MiB)
    create(top, "cluster_size=64k", 8 * MiB, backing=(base, "raw"))
    run(["qemu-io", "-c", "write -P 2 1M 64k", "-c", "write -z 2M 64k", top], timeout=60)
    with opened(top, base, size=8 * MiB, tracking=Tracking.LAYER) as source:
        assert source.changed("whatever") == [Extent(MiB, 64 * KiB), Extent(2 * MiB, 64 * KiB)]


# --- on a LUN ---


def test_an_image_on_a_lun_is_read_over_our_own_session_with_its_bitmap(tmp_path: Path, array: Array) -> None:
    backing, options = tmp_path / "lun.qcow2", "cluster_size=64k"
    create(backing, options)
    write(backing, [("compress", 0, 900, 5), ("write", 3000, 2000, 6), ("zero", 6000, 300, 1)], options)
    run(["qemu-img", "bitmap", "--add", backing, "mark"], timeout=60)
    write(backing, [("write", 2049, 3, 7), ("write", 9000, 100, 8)], options)
    expected = truth(backing)
    marked = bitmap_of_qemu(backing, "mark", SIZE)
    os.truncate(backing, 16 * MiB)  # a LUN is larger than what lies in it
    array.target(1, HOSTS)
    array.target(2, BACKUP, chap=True)
    for tid in (1, 2):
        array.lun(tid, 1, backing, "lanfree-qcow2", readonly=tid == 2)
    transport = SanTransport(SanFabric([array.san_target(BACKUP, tmp_path / "secret")]))
    disk = FrozenDisk("vda", SIZE, (Layer(LunAddress(HOSTS, 1), Format.QCOW2),), Tracking.IMAGE)
    with transport.open(disk) as source:
        assert_reads_as(source, expected, [(2040, 20), (7, 3000)])
        assert source.changed("mark") == marked


# --- large disks ---


def large(image: Path, size: int) -> BlockSource:
    disk = FrozenDisk("vda", size, (Layer(FileAddress(str(image)), Format.QCOW2),))
    return open_layers(disk, lambda _layer: FileSource(os.open(image, os.O_RDONLY), "file"), "raw")


def test_a_sparse_disk_of_one_tebibyte_is_mapped_in_a_moment(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    create(image, "cluster_size=64k", TiB)
    writes = [word for at in range(0, 1024, 8) for word in ("-c", f"write -P 3 {at}G 192k")]
    run(["qemu-io", *writes, image], timeout=120)
    begin = time.perf_counter()
    with large(image, TiB) as source:
        extents = source.extents()
    assert time.perf_counter() - begin < 5  # 0.04 s on an idle machine
    data = [Extent(at * GiB, 192 * KiB) for at in range(0, 1024, 8)]
    assert [e for e in extents if e.kind is Kind.DATA] == data
    assert is_map(extents, TiB)


def test_a_full_disk_of_256_gibibytes_is_mapped_in_a_moment(tmp_path: Path) -> None:
    image, size = tmp_path / "a.qcow2", 256 * GiB
    create(image, "cluster_size=64k,preallocation=metadata", size)
    begin = time.perf_counter()
    with large(image, size) as source:
        extents = source.extents()
    assert time.perf_counter() - begin < 5  # 0.1 s on an idle machine
    assert extents == [Extent(0, size)]
