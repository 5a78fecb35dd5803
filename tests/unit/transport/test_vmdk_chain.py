"""Chains of disks against a flat model, and everything about them that is refused.

::

    delta 2   |  |##|  |zz|     zz: unmapped or zero, hides what is under it
    delta 1   |##|  |  |##|
    base      |00|11|22|33|
    disk      |##|##|22|zz|
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused
from proxy.extents import Kind, is_map
from proxy.model import ChangeId
from proxy.transport.vmdk import VmdkChain, VmdkReason, open_vmdk
from proxy.transport.vmdk.chain import beside
from proxy.transport.vmfs import Subject, VmfsFile, open_datastore
from proxy.units import KiB, MiB
from tests.unit.transport.vmdk_builder import GRAIN, Files, build_chain, descriptor, se_sparse, vmfs_sparse
from tests.unit.transport.vmfs_builder import VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import VolumeOnLuns

SUBJECT = Subject("san", "scsi0:0")
SIZE = 3 * MiB + 5 * 512  # ends inside of a seSparse grain, and goes over the first vmfsSparse table

fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def base(size: int = SIZE) -> bytes:
    return b"".join(block.to_bytes(4, "little") * 128 for block in range(size // 512))


def read(source: VmdkChain, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xa5") * length
    source.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def refusal(files: Files, path: str) -> str:
    """The reason; and whatever was opened must have been closed again."""
    with pytest.raises(TransportRefused) as refused:
        open_vmdk(files.open, path, SUBJECT)
    assert all(source.closed for source in files.opened)
    return refused.value.reason


def written(kind: str) -> st.SearchStrategy[dict[int, bytes | None]]:
    grains = st.integers(0, -(-SIZE // GRAIN[kind]) - 1)
    content = st.one_of(st.none(), st.binary(min_size=1, max_size=GRAIN[kind]))
    return st.dictionaries(grains, content, max_size=12)


deltas = st.lists(st.sampled_from(["vmfs", "se"]).flatmap(lambda k: st.tuples(st.just(k), written(k))), max_size=4)


@pytest.mark.slow
@fuzz
@given(layers=deltas, ranges=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 20_000)), max_size=5))
def test_any_chain_reads_as_the_model(
    layers: list[tuple[str, dict[int, bytes | None]]], ranges: list[tuple[int, int]]
) -> None:
    files, top, truth = build_chain(base(), layers)
    with open_vmdk(files.open, top, SUBJECT) as source:
        assert read(source, 0, SIZE) == truth
        for offset, length in ranges:
            cut = min(length, SIZE - offset)
            assert read(source, offset, cut) == truth[offset : offset + cut]
        assert is_map(source.extents(), SIZE)
        for extent in source.extents():
            assert extent.kind is Kind.DATA or not any(truth[extent.start : extent.end])
    assert all(source.closed for source in files.opened)


@pytest.mark.slow
@given(deltas, st.integers(0, SIZE), st.integers(0, SIZE))
@fuzz
def test_the_pieces_of_a_read_are_what_the_read_gives(
    written: list[tuple[str, dict[int, bytes | None]]], offset: int, length: int
) -> None:
    check_pieces(written, offset, min(length, SIZE - offset))


def check_pieces(deltas: Sequence[tuple[str, Mapping[int, bytes | None]]], offset: int, length: int) -> None:
    files, path, truth = build_chain(base(), deltas)
    with open_vmdk(files.open, path, SUBJECT) as source:
        found = bytearray(b"\xa5") * length
        for piece in source.pieces(offset, length):
            data = bytearray(piece.length)
            if piece.file is not None:
                assert piece.file in source.files()
                piece.file.read_into(piece.place, memoryview(data))
            at = piece.start - offset
            assert bytes(found[at : at + piece.length]) == b"\xa5" * piece.length  # no byte twice
            found[at : at + piece.length] = data
        assert found == truth[offset : offset + length]


GRAINS_OF_EACH = {"se": {1: b"a", 5: None, 6: None, 700: b"c"}, "vmfs": {0: b"x", 40: b"y", 6000: b"z"}}


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [[], ["se"], ["vmfs"], ["vmfs", "se"], ["se", "vmfs", "se"]], ids=str)
@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE), (0, 0), (SIZE, 0), (511, 2), (4095, 70 * KiB), (SIZE - 1, 1)]
)
def test_pieces_of_known_chains_are_what_a_read_gives(kinds: list[str], offset: int, length: int) -> None:
    check_pieces([(kind, GRAINS_OF_EACH[kind]) for kind in kinds], offset, length)


def test_pieces_outside_of_the_disk_are_a_failed_read() -> None:
    files, path, _truth = build_chain(base(), [])
    with open_vmdk(files.open, path, SUBJECT) as source, pytest.raises(ReadFailed):
        source.pieces(SIZE - 1, 2)


@pytest.mark.parametrize("kind", ["se", "vmfs"])
def test_the_digest_of_a_chain_changes_with_what_says_where_its_bytes_are_and_with_no_byte(kind: str) -> None:
    def digest(grains: Mapping[int, bytes | None], content: bytes = b"") -> bytes:
        files, path, _truth = build_chain(content or base(), [(kind, grains)])
        with open_vmdk(files.open, path, SUBJECT) as source:
            return source.digest()

    one = digest({3: b"a", 9: b"b"})
    assert digest({3: b"b", 9: b"c"}) == one
    assert digest({3: b"a", 9: b"b"}, b"\x01" * SIZE) == one
    assert len({one, digest({3: b"a"}), digest({3: b"a", 10: b"b"}), digest({})}) == 4


@pytest.mark.parametrize("grain", [0, 1], ids=["zero", "unmapped"])
def test_a_grain_that_was_discarded_hides_the_parents_bytes(grain: int) -> None:
    files, top, _truth = build_chain(base(), [("se", {grain: None})])
    source = open_vmdk(files.open, top, SUBJECT)
    assert read(source, grain * 4096, 4096) == bytes(4096)
    assert read(source, 2 * 4096, 4096) == base()[8192:12288]


def test_a_delta_tells_only_what_it_holds() -> None:
    files, top, _truth = build_chain(bytes(SIZE), [("se", {1: b"x", 2: b"y", 9: None, 300: b"z"})])
    source = open_vmdk(files.open, top, SUBJECT)
    data = [(e.start // 4096, e.length // 4096) for e in source.extents() if e.kind is Kind.DATA]
    assert data == [(1, 2), (300, 1)]


def test_a_chain_on_a_datastore_is_read_through_it() -> None:
    files, top, truth = build_chain(base(), [("se", {0: b"new", 5: None})])
    made = VmfsBuilder(VolumeOnLuns((1,)))
    made.directory("vm")
    for path, data in files.content.items():
        made.file(path, data)
    made.finish()
    fs = open_datastore(made.volume.luns, SUBJECT)
    with open_vmdk(lambda path: VmfsFile(fs, path), top, SUBJECT) as source:
        assert read(source, 0, SIZE) == truth
        assert source.identity == f"vmfs:{fs.descriptor.uuid}/vm/vm-flat.vmdk"


def test_reads_outside_or_after_closing_fail_and_changes_are_not_known() -> None:
    files, top, _truth = build_chain(base(), [("vmfs", {1: b"x"})])
    source = open_vmdk(files.open, top, SUBJECT)
    with pytest.raises(ChangesUnknown):
        source.changed(ChangeId("1"))
    with pytest.raises(ReadFailed):
        read(source, SIZE - 1, 2)
    source.close()
    with pytest.raises(ReadFailed):
        read(source, 0, 1)


def test_files_are_looked_for_beside_their_descriptor() -> None:
    assert beside("vm/vm.vmdk", "vm-flat.vmdk") == "vm/vm-flat.vmdk"
    assert beside("vm.vmdk", "vm-flat.vmdk") == "vm-flat.vmdk"
    assert beside("vm/vm.vmdk", "/vmfs/volumes/x/vm.vmdk") == "/vmfs/volumes/x/vm.vmdk"


def test_several_flat_files_are_one_after_the_other() -> None:
    files = Files({"a": base(MiB), "b": base(2 * MiB)})
    text = descriptor(MiB, "FLAT", "a").replace(b'FLAT "a"', b'FLAT "a" 0\nRW 1024 FLAT "b" 2048')
    files.content["d"] = text
    source = open_vmdk(files.open, "d", SUBJECT)
    assert source.size == MiB + 512 * KiB
    assert read(source, MiB - 512, 1024) == base(MiB)[-512:] + base(2 * MiB)[MiB : MiB + 512]
    assert is_map(source.extents(), source.size)


# what is refused


def chain_with(change: Callable[[Files], None]) -> tuple[Files, str]:
    files, top, _truth = build_chain(base(), [("se", {0: b"x"}), ("se", {1: b"y"})])
    change(files)
    return files, top


def replaced(path: str, old: bytes, new: bytes) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        assert old in files.content[path]
        files.content[path] = files.content[path].replace(old, new)

    return change


MIDDLE = "vm/vm-000001.vmdk"
CHANGES = {
    "parent-was-written": (replaced("vm/vm.vmdk", b"CID=0000abc0", b"CID=0000abcf"), VmdkReason.PARENT_MISMATCH),
    "middle-was-written": (replaced(MIDDLE, b"\nCID=0000abc1", b"\nCID=0000ffff"), VmdkReason.PARENT_MISMATCH),
    "its-own-parent": (
        replaced(MIDDLE, b'Hint="vm.vmdk"', b'Hint="vm-000001.vmdk"\nCID=1'),
        VmdkReason.PARENT_MISMATCH,
    ),
    "resized": (replaced("vm/vm.vmdk", f"RW {SIZE // 512}".encode(), b"RW 2048"), VmdkReason.SIZE_MISMATCH),
    "flat-too-small": (replaced("vm/vm.vmdk", b"vm-flat.vmdk", b"vm.vmdk"), VmdkReason.EXTENT_TOO_SMALL),
    "no-descriptor": (replaced(MIDDLE, b"# Disk", b"# Dusk"), VmdkReason.DESCRIPTOR_DAMAGED),
    "no-cid": (replaced(MIDDLE, b"parentCID", b"parentCIX"), VmdkReason.DESCRIPTOR_DAMAGED),
    "odd-cid": (replaced(MIDDLE, b"\nCID=0000abc1", b"\nCID=zz"), VmdkReason.DESCRIPTOR_DAMAGED),
    "parent-without-name": (replaced(MIDDLE, b"parentFileNameHint", b"other"), VmdkReason.DESCRIPTOR_DAMAGED),
    "huge": (replaced(MIDDLE, b"RW ", b"RW 99999999999"), VmdkReason.DESCRIPTOR_DAMAGED),
    "long": (replaced(MIDDLE, b"#DDB", b"#" * 70_000), VmdkReason.DESCRIPTOR_DAMAGED),
    "no-extent": (replaced(MIDDLE, b"RW ", b"# "), VmdkReason.DESCRIPTOR_DAMAGED),
    "stream-optimized": (replaced(MIDDLE, b"SESPARSE", b"SPARSE"), VmdkReason.TYPE),
    "flat-delta": (replaced(MIDDLE, b"SESPARSE", b"VMFS"), VmdkReason.TYPE),
    "no-access": (replaced(MIDDLE, b"RW ", b"NOACCESS "), VmdkReason.TYPE),
    "raw-device": (replaced("vm/vm.vmdk", b"VMFS", b"VMFSRDM"), VmdkReason.RAW_DEVICE),
    "encrypted": (replaced("vm/vm.vmdk", b"#DDB", b'ddb.iofilters = "vmwarevmcrypt"'), VmdkReason.ENCRYPTED),
    "other-kind-of-delta": (replaced(MIDDLE, b"SESPARSE", b"VMFSSPARSE"), VmdkReason.SPARSE_DAMAGED),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_chain_that_is_not_what_it_says_is_refused(change: Callable[[Files], None], reason: VmdkReason) -> None:
    assert refusal(*chain_with(change)) == reason


def test_a_chain_without_end_is_refused() -> None:
    files = Files({"delta": se_sparse(SIZE, {})})
    files.content["d"] = descriptor(SIZE, "SESPARSE", "delta", cid=7, parent=(7, "d"))
    assert refusal(files, "d") == VmdkReason.CHAIN


def one_delta(kind: str, extent: bytes) -> tuple[Files, str]:
    files, top, _truth = build_chain(base(), [(kind, {0: b"x"})])
    (name,) = (path for path in files.content if "delta" in path or "sesparse" in path)
    files.content[name] = extent
    return files, top


def test_a_journal_that_was_not_replayed_is_refused() -> None:
    assert refusal(*one_delta("se", se_sparse(SIZE, {0: b"x"}, replay=1))) == VmdkReason.JOURNAL


def test_a_vmfs_sparse_extent_that_was_not_closed_is_refused() -> None:
    extent = bytearray(vmfs_sparse(SIZE, {0: b"x"}))
    struct.pack_into("<I", extent, 1648, 1)
    assert refusal(*one_delta("vmfs", bytes(extent))) == VmdkReason.JOURNAL


FIELDS = {
    "vmfs-magic": ("vmfs", 0, "<I", 0),
    "vmfs-version": ("vmfs", 4, "<I", 2),
    "vmfs-sectors": ("vmfs", 12, "<I", 0),
    "vmfs-grain-0": ("vmfs", 16, "<I", 0),
    "vmfs-grain-huge": ("vmfs", 16, "<I", 2**31),
    "vmfs-directory": ("vmfs", 20, "<I", 2**32 - 1),
    "vmfs-entries": ("vmfs", 24, "<I", 0),
    "vmfs-table": ("vmfs", 2048, "<I", 2**32 - 1),
    "se-magic": ("se", 0, "<Q", 0),
    "se-version": ("se", 8, "<Q", 1),
    "se-capacity-0": ("se", 16, "<Q", 0),
    "se-capacity-huge": ("se", 16, "<Q", 2**63),
    "se-grain": ("se", 24, "<Q", 0),
    "se-table-size": ("se", 32, "<Q", 2**40),
    "se-volatile": ("se", 80, "<Q", 2**62),
    "se-volatile-magic": ("se", 512, "<Q", 0),
    "se-directory": ("se", 128, "<Q", 2**37),
    "se-directory-size": ("se", 136, "<Q", 0),
    "se-tables": ("se", 144, "<Q", 2**37),
    "se-directory-entry": ("se", 16 * 512, "<Q", 5),
    "se-directory-entry-far": ("se", 16 * 512, "<Q", 0x10000000 << 32 | 2**32 - 1),
}


@pytest.mark.parametrize(("kind", "offset", "form", "value"), FIELDS.values(), ids=FIELDS)
def test_a_damaged_header_is_refused(kind: str, offset: int, form: str, value: int) -> None:
    extent = bytearray(vmfs_sparse(SIZE, {0: b"x"}) if kind == "vmfs" else se_sparse(SIZE, {0: b"x"}))
    struct.pack_into(form, extent, offset, value)
    assert refusal(*one_delta(kind, bytes(extent))) == VmdkReason.SPARSE_DAMAGED


@pytest.mark.parametrize("entry", [5, 4 << 60, 15 << 60, 3 << 60 | 2**40, 3 << 60 | 0xFFF << 48 | 2**36])
def test_a_grain_that_is_not_understood_is_never_a_hole(entry: int) -> None:
    extent = bytearray(se_sparse(SIZE, {0: b"x"}))
    struct.pack_into("<Q", extent, 64 * 512, entry)
    files, top = one_delta("se", bytes(extent))
    source = open_vmdk(files.open, top, SUBJECT)
    with pytest.raises(ReadFailed):
        read(source, 0, 512)
    with pytest.raises(TransportRefused):
        source.extents()


@pytest.mark.slow
@fuzz
@given(data=st.data(), kind=st.sampled_from(["vmfs", "se"]))
def test_any_change_of_a_delta_is_an_answer_or_a_refusal(data: st.DataObject, kind: str) -> None:
    written_grains = {0: b"x", 3: None, 700: b"y"}
    extent = bytearray(vmfs_sparse(SIZE, written_grains) if kind == "vmfs" else se_sparse(SIZE, written_grains))
    for _change in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(extent), 40_000) - 9))
        extent[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    cut = data.draw(st.one_of(st.just(len(extent)), st.integers(0, len(extent))))
    files, top = one_delta(kind, bytes(extent[:cut]))
    try:
        with open_vmdk(files.open, top, SUBJECT) as source:
            assert is_map(source.extents(), SIZE)
            read(source, 0, SIZE)
    except (TransportRefused, ReadFailed):
        pass
    assert all(source.closed for source in files.opened)


@pytest.mark.slow
@fuzz
@given(noise=st.binary(max_size=2000))
def test_any_descriptor_is_an_answer_or_a_refusal(noise: bytes) -> None:
    good = descriptor(SIZE, "VMFS", "flat")
    for text in (noise, b"# Disk DescriptorFile\n" + noise, good[: len(noise)] + noise + good[len(noise) :]):
        files = Files({"d": text, "flat": bytes(SIZE)})
        with suppress(TransportRefused, KeyError):
            open_vmdk(files.open, "d", SUBJECT).close()
        assert all(source.closed for source in files.opened)
