"""Disks of a VMFS datastore opened through the whole stack: what is read, what is refused and why, what is noticed afterwards.

::

    open      |address|LUNs|volume|chain|map, twice|oracle|
    read      |…
    confirm   |the map is still the same|
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused
from proxy.extents import Extent, Kind, is_map
from proxy.model import (
    DeviceAddress,
    FileAddress,
    Format,
    FrozenDisk,
    Layer,
    Location,
    LunAddress,
    NbdAddress,
    VmdkAddress,
)
from proxy.ports import Transport
from proxy.transport.lan import LanTransport
from proxy.transport.raw import RawTransport, SharedFiles
from proxy.transport.san import SanFabric, SanTransport
from proxy.transport.vmdk import VmdkReason
from proxy.transport.vmfs import Subject, VmfsFile, VmfsReason, open_datastore
from proxy.transport.vmfs_san import VmfsSanReason, VmfsSource
from proxy.units import KiB, MiB
from tests.unit.transport.vmdk_builder import descriptor
from tests.unit.transport.vmfs_builder import DATA, HOLE, LARGE, RAW_DEVICE, ZEROED, VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import SparseLun, VolumeOnLuns, lun_name
from tests.unit.transport.vmfs_site import MemoryLuns, Site, site, some_bytes, thin_site

# Datastores of many shapes are built for it, sector by sector.
pytestmark = pytest.mark.slow

BASE = some_bytes(3 * MiB + 512)
GRAINS = {1: b"a" * 4096, 5: None, 300: b"c" * 4096, 301: b"d" * 4096, 40: b"e" * 4096}
SECTORS = {1: b"a" * 512, 7: b"b" * 512, 5000: b"c" * 512, 5001: b"d" * 512}

SITES: dict[str, Callable[[], Site]] = {
    "flat": lambda: site(BASE),
    "flat on VMFS 5": lambda: site(BASE, version=5),
    "seSparse over flat": lambda: site(BASE, [("se", GRAINS)]),
    "two seSparse": lambda: site(BASE, [("se", GRAINS), ("se", {0: b"z" * 4096, 40: None, 5: b"y" * 4096})]),
    "vmfsSparse on VMFS 5": lambda: site(BASE, [("vmfs", SECTORS), ("vmfs", {6: b"x" * 512})], version=5),
    "thin": lambda: thin_site([DATA, HOLE, DATA, DATA, HOLE]),
    "lazily zeroed": lambda: thin_site([ZEROED, DATA, ZEROED]),
    "over two LUNs": lambda: thin_site([DATA] * 6, extents=(1, 1)),
    "small": lambda: site(b"boot sector".ljust(512, b".")),
}


@pytest.fixture(params=SITES.values(), ids=SITES.keys(), scope="module")
def any_site(request: pytest.FixtureRequest) -> Site:
    made: Site = request.param()
    return made


def read(source: object, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xa5") * length
    source.read_into(offset, memoryview(buffer))  # type: ignore[attr-defined]
    return bytes(buffer)


def content(made: Site) -> bytes:
    with made.transport().open(made.disk()) as source:
        return read(source, 0, source.size)


def refusal(made: Site, disk: FrozenDisk | None = None, luns: MemoryLuns | None = None, oracle: object = None) -> str:
    """The reason for which ``open`` refuses; it must have closed every LUN that it opened."""
    used = luns or made.luns()
    with pytest.raises(TransportRefused) as refused:
        made.transport(used, oracle).open(disk or made.disk())  # type: ignore[arg-type]
    assert all(lun.closed for lun in used.opened)
    assert refused.value.mode == "san"
    return refused.value.reason


# --- reading ---


def test_a_disk_reads_as_it_is_on_the_datastore(any_site: Site) -> None:
    assert content(any_site) == any_site.truth


def test_a_disk_on_two_luns_is_read_from_both() -> None:
    made = thin_site([DATA] * 6, extents=(1, 1))
    luns = made.luns()
    with made.transport(luns).open(made.disk()) as source:
        for lun in luns.opened:
            lun.batches.clear()
        assert read(source, 0, source.size) == made.truth
        assert [sum(n for batch in lun.batches for _at, n in batch) for lun in luns.opened] == [3 * MiB, 3 * MiB]


def test_every_range_reads_as_the_same_range_of_the_whole(any_site: Site) -> None:
    chance, size = random.Random(5), len(any_site.truth)
    with any_site.transport().open(any_site.disk()) as source:
        for _ in range(40):
            offset = chance.randrange(size)
            length = chance.randrange(min(3 * MiB, size - offset) + 1)
            assert read(source, offset, length) == any_site.truth[offset : offset + length]


def test_the_map_covers_the_disk_and_calls_no_data_zero(any_site: Site) -> None:
    with any_site.transport().open(any_site.disk()) as source:
        assert is_map(source.extents(), len(any_site.truth))
        for extent in source.extents():
            assert extent.kind is Kind.DATA or not any(any_site.truth[extent.start : extent.end])


def test_the_map_is_the_same_however_often_it_is_asked_for(any_site: Site) -> None:
    with any_site.transport().open(any_site.disk()) as source:
        first = source.extents()
        assert [source.extents() for _ in range(2)] == [first] * 2


def test_nearby_grains_are_read_together_in_order_of_the_lun() -> None:
    written = {2 * n: bytes([n]) * 4096 for n in range(1, 60)}
    made = site(BASE, [("se", written)])  # falling order in the file, holes between them in the disk
    luns = made.luns()
    with made.transport(luns).open(made.disk()) as source:
        for lun in luns.opened:
            lun.batches.clear()
        assert read(source, 0, MiB) == made.truth[:MiB]
        (batch,) = luns.opened[0].batches
        assert batch == sorted(batch)
        assert len(batch) <= 5  # for 59 grains and 60 pieces of the base
        assert sum(length for _offset, length in batch) < MiB + 512 * KiB


def test_a_failed_read_tells_the_place_in_the_disk() -> None:
    made = site(BASE)
    luns = made.luns()
    source = made.transport(luns).open(made.disk())
    luns.opened[0].broken = True
    with pytest.raises(ReadFailed, match=r"reading 1024 bytes at 2048 of vmfs:.*the array is gone"):
        read(source, 2048, 1024)
    source.close()


def test_closing_the_source_closes_its_luns() -> None:
    made = thin_site([DATA] * 6, extents=(1, 1))
    luns = made.luns()
    made.transport(luns).open(made.disk()).close()
    assert [lun.closed for lun in luns.opened] == [1, 1]


# --- refusing addresses ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "NFS"}, VmfsSanReason.NOT_VMFS),
        ({"kind": "NFS41"}, VmfsSanReason.NOT_VMFS),
        ({"kind": "vsan"}, VmfsSanReason.NOT_VMFS),
        ({"kind": "VVOL"}, VmfsSanReason.NOT_VMFS),
        ({"kind": ""}, VmfsSanReason.NOT_VMFS),
        ({"kind": "RDM", "volume": ""}, VmfsSanReason.RAW_DEVICE),
        ({"encrypted": True}, VmfsSanReason.ENCRYPTED),
        ({"volume": ""}, VmfsSanReason.NO_UUID),
        ({"devices": ()}, VmfsSanReason.NO_DEVICES),
        ({"devices": ("",)}, VmfsSanReason.NO_DEVICES),
        ({"devices": ("naa.6000c2900000000000000000000000ff",)}, "no-target-presents-it"),
    ],
    ids=str,
)
def test_a_disk_that_cannot_be_on_the_san_is_refused_by_probe_and_open(changes: dict[str, object], reason: str) -> None:
    made = site(BASE)
    disk = made.disk(**changes)
    with pytest.raises(TransportRefused) as refused:
        made.transport().probe(disk)
    assert refused.value.reason == reason == refusal(made, disk)


def test_a_probe_needs_no_snapshot_yet_and_opens_no_lun() -> None:
    made = site(BASE)
    luns = made.luns()
    made.transport(luns).probe(made.disk(snapshot=""))
    assert luns.opened == []


OTHERS: list[Location] = [
    LunAddress("iqn.x:hosts", 1),
    DeviceAddress("/dev/sda", "naa.6000c290"),
    FileAddress("/images/a"),
    NbdAddress("nbd://host/vda"),
]


@pytest.mark.parametrize("location", OTHERS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("form", [Format.RAW, Format.QCOW2, Format.VMDK])
def test_disks_of_other_hypervisors_are_refused(location: Location, form: Format) -> None:
    made = site(BASE)
    assert refusal(made, FrozenDisk("vda", MiB, (Layer(location, form),))) == VmfsSanReason.NOT_VSPHERE


def test_a_vsphere_disk_of_several_layers_or_of_another_form_is_refused() -> None:
    made = site(BASE)
    layer = made.disk().layers[0]
    for layers in ((), (layer, layer), (replace(layer, format=Format.RAW),)):
        assert refusal(made, FrozenDisk("scsi0:0", len(BASE), layers)) == VmfsSanReason.NOT_VSPHERE


@pytest.mark.parametrize(
    "transport",
    [SanTransport(SanFabric([])), RawTransport(SharedFiles(())), LanTransport()],
    ids=["san", "raw", "lan"],
)
def test_the_other_transports_refuse_a_vsphere_disk_with_a_reason(transport: Transport) -> None:
    disk = site(BASE).disk()
    for call in (transport.probe, transport.open):
        with pytest.raises(TransportRefused) as refused:
            call(disk)
        assert refused.value.reason
        assert refused.value.mode == transport.mode


# --- refusing volumes ---


def test_another_file_system_under_the_name_is_refused() -> None:
    made = site(BASE)
    disk = made.disk(volume="00000000-90e23158-8a2e-bc2411b17e28")
    assert refusal(made, disk) == VmfsReason.WRONG_VOLUME


def test_a_copy_of_the_lun_under_another_name_is_refused() -> None:
    """An array's snapshot: same UUIDs, same bytes; but hosts wrote the origin's name on it."""
    made = site(BASE)
    copy = "naa.6000c2900000000000000000000000aa"
    luns = MemoryLuns({copy: made.volume.luns[0]})
    assert refusal(made, made.disk(devices=(copy,)), luns) == VmfsSanReason.DEVICE_NAMES


def test_a_volume_on_which_no_name_is_written_is_refused() -> None:
    made = site(BASE)
    lun = made.volume.luns[0]
    lun.write(made.volume.start + 0x100000 + 4096 + 512 * KiB - 32 * 256, bytes(256))
    assert refusal(made) == VmfsSanReason.DEVICE_NAMES


def test_a_spanned_datastore_with_one_lun_missing_is_refused() -> None:
    made = thin_site([DATA] * 6, extents=(1, 1))
    assert refusal(made, made.disk(devices=made.names[:1])) == VmfsReason.SPAN_MISSING
    luns = MemoryLuns({made.names[0]: made.volume.luns[0]})
    assert refusal(made, luns=luns) == "no-target-presents-it"


def test_a_second_lun_that_belongs_to_another_volume_is_refused() -> None:
    made = thin_site([DATA] * 6, extents=(1, 1))
    made.volume.luns[1] = SparseLun(made.volume.luns[1].size)
    assert refusal(made) == VmfsReason.SPAN_MISSING


# --- refusing chains ---


@pytest.mark.parametrize(("mode", "allowed"), [(0, True), (1, False), (2, True), (3, False), (9, False)])
@pytest.mark.parametrize("file", ["vm/vm-flat.vmdk", "vm/vm-000001-sesparse.vmdk"])
def test_a_file_that_a_host_may_write_to_is_refused(file: str, mode: int, allowed: bool) -> None:
    made = site(BASE, [("se", GRAINS)])
    made.volume.write(made.made.at[file] + 0x24, mode.to_bytes(4, "little"))
    if allowed:
        assert content(made) == made.truth
    else:
        assert refusal(made) == VmfsSanReason.IN_USE


@pytest.mark.parametrize("more", [512, -512, MiB])
def test_a_disk_of_another_size_is_refused(more: int) -> None:
    made = site(BASE)
    assert refusal(made, replace(made.disk(), size=len(BASE) + more)) == VmfsSanReason.SIZE_MISMATCH


def test_a_disk_whose_size_nobody_told_has_that_of_its_descriptor() -> None:
    made = site(BASE)
    with made.transport().open(replace(made.disk(), size=0)) as source:
        assert source.size == len(BASE)


def linked(parent: str, files: dict[str, bytes]) -> Site:
    """A machine whose base names its flat file by ``parent``."""
    made = VmfsBuilder(VolumeOnLuns((1,)), label="fixture")
    made.directory("vm")
    made.directory("base")
    made.file("vm/vm.vmdk", descriptor(len(BASE), "VMFS", parent))
    for name, data in files.items():
        made.file(name, data)
    made.finish()
    return Site(made, "vm/vm.vmdk", BASE, (lun_name(0),))


@pytest.mark.parametrize(
    "name",
    [
        "/vmfs/volumes/68626f2d-90e23158-8a2e-bc2411b17e28/base/flat.vmdk",
        "/vmfs/volumes/fixture/base/flat.vmdk",
        "../base/flat.vmdk",
    ],
)
def test_a_parent_may_be_named_in_any_way_that_means_this_datastore(name: str) -> None:
    assert content(linked(name, {"base/flat.vmdk": BASE})) == BASE


@pytest.mark.parametrize(
    "name",
    ["/vmfs/volumes/other/base/flat.vmdk", "/etc/shadow", "/vmfs/volumes/fixture", "../../base/flat.vmdk"],
)
def test_a_parent_on_another_datastore_is_refused(name: str) -> None:
    assert refusal(linked(name, {"base/flat.vmdk": BASE})) == VmfsSanReason.OTHER_DATASTORE


BASE_LINE = b'RW 6145 VMFS "vm-flat.vmdk"'


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (BASE_LINE, b'RW 6145 VMFSRDM "vm-rdm.vmdk"', VmdkReason.RAW_DEVICE),
        (BASE_LINE, b'RW 6145 VMFSRDMP "vm-rdmp.vmdk"', VmdkReason.RAW_DEVICE),
        (BASE_LINE, b'RW 6145 SPARSE "vm-s001.vmdk"', VmdkReason.TYPE),
        (b"#DDB", b'ddb.iofilters = "vmwarevmcrypt"', VmdkReason.ENCRYPTED),
        (b"CID=0000abc0", b"CID=0000abc1", VmdkReason.PARENT_MISMATCH),
        (b"# Disk", b"# disk", VmdkReason.DESCRIPTOR_DAMAGED),
    ],
    ids=["rdm", "physical rdm", "hosted sparse", "encrypted", "parent changed", "no descriptor"],
)
def test_an_unusual_base_is_refused(old: bytes, new: bytes, reason: str) -> None:
    made = site(BASE, [("se", GRAINS)])
    rewrite(made, "vm/vm.vmdk", lambda data: data.replace(old, new, 1))
    assert refusal(made) == reason


def test_a_raw_device_mapping_that_a_descriptor_calls_flat_is_refused() -> None:
    made = VmfsBuilder(VolumeOnLuns((1,)))
    made.directory("vm")
    made.file("vm/vm-flat.vmdk", bytes(512), kind=RAW_DEVICE)
    made.file("vm/vm.vmdk", descriptor(512, "VMFS", "vm-flat.vmdk"))
    made.finish()
    assert refusal(Site(made, "vm/vm.vmdk", bytes(512), (lun_name(0),))) == VmfsReason.RAW_DEVICE


def test_a_delta_with_a_journal_that_was_not_replayed_is_refused() -> None:
    made = site(BASE, [("se", GRAINS)])
    write_in_file(made, "vm/vm-000001-sesparse.vmdk", 512 + 24, (1).to_bytes(8, "little"))
    assert refusal(made) == VmdkReason.JOURNAL


def test_a_descriptor_that_is_not_there_is_refused() -> None:
    made = site(BASE)
    assert refusal(made, made.disk(path="vm/gone.vmdk")) == VmfsReason.FILE_NOT_FOUND


# --- refusing maps ---


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("loop", VmfsReason.SHARED_POINTERS),
        ("itself", VmfsReason.UNKNOWN_ADDRESS),
        ("cut off", VmfsReason.BLOCK_COUNT),
        ("outside", VmfsReason.BLOCK_OUTSIDE),
        ("partly zeroed", VmfsReason.PARTIALLY_ZEROED),
    ],
)
def test_damaged_pointer_blocks_are_refused_at_opening(damage: str, reason: str) -> None:
    made = two_tables()
    at = made.made.at["vm/vm-flat.vmdk"] + made.made.geometry.pointers_at
    first = int.from_bytes(made.volume.read(at, 8), "little")
    table = made.made._sub_blocks.offset(int(first >> 6 & 0xFFFFFFFFF) * 256 + (first >> 56))
    block = int.from_bytes(made.volume.read(table, 8), "little")
    if damage == "loop":
        made.volume.write(at + 8, first.to_bytes(8, "little"))
    elif damage == "itself":
        made.volume.write(table, first.to_bytes(8, "little"))
    elif damage == "cut off":
        made.volume.write(table + 4096, bytes(64 * KiB - 4096))
    elif damage == "outside":
        made.volume.write(table, (block | 0x3FFF << 20).to_bytes(8, "little"))
    else:
        made.volume.write(table, (block | 1 << 7).to_bytes(8, "little"))
    assert refusal(made, replace(made.disk(), size=0)) == reason


def two_tables() -> Site:
    """10,000 blocks: two pointer blocks."""
    made = VmfsBuilder(VolumeOnLuns((24,)))
    made.directory("vm")
    size = 10_000 * MiB
    made.disk("vm/vm-flat.vmdk", size, [DATA, HOLE] * 5000, content=False)
    made.file("vm/vm.vmdk", descriptor(size, "VMFS", "vm-flat.vmdk"))
    made.finish()
    return Site(made, "vm/vm.vmdk", b"", (lun_name(0),))


def test_large_blocks_are_refused_where_nothing_can_be_compared() -> None:
    made = VmfsBuilder(VolumeOnLuns((12,)))
    made.directory("vm")
    size = 512 * MiB
    made.disk("vm/vm-flat.vmdk", size, [LARGE] * 512)
    made.file("vm/vm.vmdk", descriptor(size, "VMFS", "vm-flat.vmdk"))
    made.finish()
    large = Site(made, "vm/vm.vmdk", b"", (lun_name(0),))
    assert refusal(large, replace(large.disk(), size=size)) == VmfsReason.LARGE_BLOCK_LAYOUT


def test_a_map_that_changes_while_it_is_read_is_refused() -> None:
    made = thin_site([DATA, HOLE, DATA])
    lun, at = made.volume.luns[0], made.made.at["vm/vm-flat.vmdk"]
    index, place = made.volume.place(at)
    assert index == 0
    plain, seen = lun.read_into, [0]

    def changing(offset: int, buffer: memoryview) -> None:
        if offset <= place < offset + len(buffer):
            seen[0] += 1
            if seen[0] == 2:
                swap_blocks(made)
        plain(offset, buffer)

    lun.read_into = changing  # type: ignore[method-assign]
    assert refusal(made) == VmfsSanReason.UNSTABLE
    assert seen[0] == 2


# --- the hypervisor's own account ---


@dataclass
class Told:
    """An oracle. ``asked``: for which address."""

    areas: Sequence[Extent] | None
    asked: VmdkAddress | None = None

    def allocated(self, address: VmdkAddress) -> Sequence[Extent]:
        self.asked = address
        if self.areas is None:
            raise ChangesUnknown(address.path, "no-tracking-for-format")
        return self.areas


@pytest.mark.parametrize(
    "areas",
    [
        [Extent(0, MiB), Extent(2 * MiB, MiB)],
        [Extent(2 * MiB + 64 * KiB, 64 * KiB)],
        [],
        None,
    ],
    ids=["all", "less", "nothing", "does not know"],
)
def test_what_the_hypervisor_calls_allocated_may_be_all_of_our_data_or_less(areas: Sequence[Extent] | None) -> None:
    made, told = thin_site([DATA, HOLE, DATA]), Told(areas)
    with made.transport(oracle=told).open(made.disk()) as source:
        assert read(source, 0, source.size) == made.truth
    assert told.asked == made.address()


@pytest.mark.parametrize(
    "areas",
    [[Extent(0, 3 * MiB)], [Extent(MiB, 64 * KiB)], [Extent(0, MiB + 64 * KiB)]],
    ids=["whole disk", "in the hole", "into the hole"],
)
def test_an_allocated_area_that_is_a_hole_for_us_is_refused(areas: Sequence[Extent]) -> None:
    assert refusal(thin_site([DATA, HOLE, DATA]), oracle=Told(areas)) == VmfsSanReason.ALLOCATION


def test_a_lazily_zeroed_block_that_the_hypervisor_calls_allocated_is_refused() -> None:
    assert refusal(thin_site([DATA, ZEROED]), oracle=Told([Extent(0, 2 * MiB)])) == VmfsSanReason.ALLOCATION


def test_areas_of_a_delta_are_compared_in_the_blocks_in_which_they_were_told() -> None:
    """One grain of 4 KiB over a hole: the hypervisor tells the 64 KiB around it."""
    made = site(bytes(2 * MiB), [("se", {40: b"g" * 4096})])
    made = replace(made, truth=made.truth)
    told = Told([Extent(128 * KiB, 64 * KiB)])
    with made.transport(oracle=told).open(made.disk()) as source:
        assert read(source, 0, source.size) == made.truth


# --- afterwards ---


def rewrite(made: Site, path: str, change: Callable[[bytes], bytes]) -> None:
    """A small file that lies in its descriptor, in place."""
    g = made.made.geometry
    at = made.made.at[path] + g.resident_at
    data = change(made.volume.read(at, g.resident_size).rstrip(b"\0"))
    made.volume.write(at, data.ljust(g.resident_size, b"\0"))
    made.volume.write(made.made.at[path] + g.facts_at + 0x14, len(data).to_bytes(8, "little"))


def write_in_file(made: Site, path: str, offset: int, data: bytes) -> None:
    """Bytes of a file that lies in blocks of its own or in sub-blocks, contiguous as the builder lays them."""
    file = VmfsFile(open_datastore(made.volume.luns, Subject("test", path)), path)
    (place,) = file.places(offset, len(data))
    made.volume.luns[place.lun].write(place.offset, data)


def swap_blocks(made: Site) -> None:
    """The first and the third block of the flat file change places."""
    at = made.made.at["vm/vm-flat.vmdk"] + made.made.geometry.pointers_at
    first, third = made.volume.read(at, 8), made.volume.read(at + 16, 8)
    made.volume.write(at, third)
    made.volume.write(at + 16, first)


def freed(made: Site) -> None:
    made.volume.write(made.made.at["vm/vm-flat.vmdk"] + made.made.geometry.facts_at + 4, b"\x02")


def locked(made: Site) -> None:
    made.volume.write(made.made.at["vm/vm-flat.vmdk"] + 0x24, b"\x01")


def consolidated(made: Site) -> None:
    rewrite(made, "vm/vm.vmdk", lambda data: data.replace(b"CID=0000abc0", b"CID=0000abc9", 1))


def grain_moved(made: Site) -> None:
    table = (16 + 1 + 63) // 64 * 64 * 512
    write_in_file(made, "vm/vm-000001-sesparse.vmdk", table + 8 * 700, ((3 << 60) | (1 << 48)).to_bytes(8, "little"))


CHANGES: dict[str, Callable[[Site], None]] = {
    "blocks moved": swap_blocks,
    "file deleted, its descriptor given to another": freed,
    "opened for writing": locked,
    "base written to": consolidated,
    "grain moved": grain_moved,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_metadata_that_changed_under_the_reader_is_noticed_when_the_source_is_left(
    change: Callable[[Site], None],
) -> None:
    made = site(BASE, [("se", GRAINS)])
    luns = made.luns()
    with pytest.raises(TransportRefused) as refused, made.transport(luns).open(made.disk()) as source:
        read(source, 0, MiB)
        change(made)
    assert refused.value.reason == VmfsSanReason.CHANGED
    assert luns.opened[0].closed == 1


def test_another_lun_under_the_number_is_noticed_when_the_source_is_left() -> None:
    made = site(BASE)
    luns = made.luns()
    with pytest.raises(TransportRefused, match="lun-identity") as refused, made.transport(luns).open(made.disk()):
        luns.opened[0].replaced = True
    assert refused.value.reason == VmfsSanReason.CHANGED


def test_a_run_whose_luns_are_gone_in_the_end_is_not_confirmed() -> None:
    made = site(BASE)
    luns = made.luns()
    with pytest.raises(ReadFailed), made.transport(luns).open(made.disk()):
        luns.opened[0].broken = True


def test_confirming_by_hand_is_enough_and_says_the_same() -> None:
    made = site(BASE, [("se", GRAINS)])
    with made.transport().open(made.disk()) as source:
        assert isinstance(source, VmfsSource)
        source.confirm()
        swap_blocks(made)  # after the last byte was read and confirmed: nobody's concern any more
    made = site(BASE)
    with pytest.raises(TransportRefused), made.transport().open(made.disk()) as source:
        assert isinstance(source, VmfsSource)
        source.confirm()
        swap_blocks(made)
        read(source, 0, 512)
    with pytest.raises(TransportRefused), made.transport().open(made.disk()) as source:
        assert isinstance(source, VmfsSource)
        swap_blocks(made)
        source.confirm()


def test_whoever_fails_while_reading_hears_of_that_and_not_of_the_map() -> None:
    made = site(BASE)
    luns = made.luns()
    with pytest.raises(RuntimeError, match="mine"), made.transport(luns).open(made.disk()):
        swap_blocks(made)
        raise RuntimeError("mine")
    assert luns.opened[0].closed == 1


def test_what_does_not_say_where_the_bytes_are_may_change() -> None:
    made = site(BASE, [("se", GRAINS)])
    with made.transport().open(made.disk()) as source:
        made.volume.write(made.made.at["vm/vm-flat.vmdk"] + made.made.geometry.facts_at + 0x2C, b"\x99" * 12)  # times
        made.volume.write(made.made.at["vm/vm-flat.vmdk"] + 0x24, b"\x02")  # another host reads it
        read(source, 0, MiB)
    assert content(made) == made.truth
