"""A volume opened: its descriptor, resource files, names and small files; each thing that can be wrong is refused.

::

    volume descriptor ── root ── "vm" ── "vm.vmx"
                           `──── ".fdc.sf" …
"""

import struct
from collections.abc import Callable

import pytest

from proxy.errors import TransportRefused
from proxy.transport.vmfs import Subject, Vmfs, VmfsReason, open_datastore
from proxy.transport.vmfs.fs_format import FileType, Layout
from proxy.units import KiB
from tests.unit.transport.vmfs_builder import RAW_DEVICE, SYMLINK, VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import PAGE, SparseLun, VolumeOnLuns

# Datastores of many shapes and damages are built for it, sector by sector.
pytestmark = pytest.mark.slow

SUBJECT = Subject("san", "scsi0:0")
UUID = "68626f2d-90e23158-8a2e-bc2411b17e28"
VMX = b'displayName = "vm"\n'


def built(version: int = 6, fill: Callable[[VmfsBuilder], object] = lambda made: None) -> VmfsBuilder:
    made = VmfsBuilder(VolumeOnLuns((1,), version=version), version=version)
    made.directory("vm")
    made.file("vm/vm.vmx", VMX)
    fill(made)
    made.finish()
    return made


def opened(made: VmfsBuilder) -> Vmfs:
    return open_datastore(made.volume.luns, SUBJECT)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(TransportRefused) as refused:
        call()
    return refused.value.reason


both = pytest.mark.parametrize("version", [5, 6])


@both
def test_a_datastore_tells_its_name_and_its_uuid(version: int) -> None:
    fs = opened(built(version))
    assert (fs.name, fs.descriptor.uuid, fs.descriptor.local) == ("fixture", UUID, False)


@both
@pytest.mark.parametrize("size", [0, 1, 1000, 3585, 8 * KiB, 64 * KiB + 1, 200_000, 1_500_000])
def test_small_files_of_every_layout_are_read_whole(version: int, size: int) -> None:
    data = bytes(i * 7 & 0xFF for i in range(size))
    fs = opened(built(version, lambda made: made.file("vm/vm.nvram", data)))
    assert fs.read_small("vm/vm.nvram") == data
    assert fs.read_small("/vm/vm.vmx") == VMX


@both
def test_all_names_are_found_and_system_files_only_when_asked(version: int) -> None:
    fs = opened(built(version, lambda made: [made.file(f"vm/f{i}", b"") for i in range(40)]))
    assert {path for path, _file in fs.walk()} == {"vm", "vm/vm.vmx"} | {f"vm/f{i}" for i in range(40)}
    system = {path for path, file in fs.walk(system=True) if file.type is FileType.SYSTEM}
    assert {".fdc.sf", ".sbc.sf", ".pb2.sf"} <= system


@both
def test_what_is_not_there_or_not_a_file_is_refused_by_name(version: int) -> None:
    def fill(made: VmfsBuilder) -> None:
        made.file("vm/link", b"elsewhere", kind=SYMLINK)
        made.file("vm/rdm.vmdk", b"", kind=RAW_DEVICE)

    fs = opened(built(version, fill))
    assert refusal(lambda: fs.lookup("vm/none.vmx")) == VmfsReason.FILE_NOT_FOUND
    assert refusal(lambda: fs.lookup("vm/vm.vmx/x")) == VmfsReason.NOT_A_FILE
    assert refusal(lambda: fs.read_small("vm")) == VmfsReason.NOT_A_FILE
    assert refusal(lambda: fs.read_small("vm/link")) == VmfsReason.NOT_A_FILE
    assert refusal(lambda: fs.map(fs.lookup("vm/rdm.vmdk"))) == VmfsReason.RAW_DEVICE


def test_a_small_file_that_is_large_is_refused() -> None:
    fs = opened(built(6, lambda made: made.disk("vm/vm.vmsd", 64 << 40, [])))
    assert refusal(lambda: fs.read_small("vm/vm.vmsd")) == VmfsReason.FILE_TOO_LARGE


def test_the_datastore_with_the_asked_uuid_is_opened() -> None:
    luns = built().volume.luns
    assert open_datastore(luns, SUBJECT, uuid=UUID).descriptor.uuid == UUID
    assert refusal(lambda: open_datastore(luns, SUBJECT, uuid="another")) == VmfsReason.WRONG_VOLUME


def test_another_volume_that_is_not_whole_does_not_hide_the_asked_one() -> None:
    broken = VolumeOnLuns((1, 1)).luns[0]
    at, size = 0x100000 + 0x100000 + 4096 + 0x54, 16
    broken.write(at, bytes(size))
    luns = [broken, *built().volume.luns]
    assert open_datastore(luns, SUBJECT, uuid=UUID).descriptor.uuid == UUID
    assert refusal(lambda: open_datastore(luns, SUBJECT)) == VmfsReason.SPAN_MISSING


def test_luns_without_vmfs_are_a_refusal() -> None:
    assert refusal(lambda: open_datastore([SparseLun(1 << 30)], SUBJECT)) == VmfsReason.NO_VOLUME
    assert refusal(lambda: open_datastore(VolumeOnLuns((1,)).luns, SUBJECT)) == VmfsReason.NO_VOLUME
    assert refusal(lambda: open_datastore([], SUBJECT)) == VmfsReason.NO_VOLUME


def test_a_file_system_without_a_volume_manager_is_read_too() -> None:
    made = built()
    made.volume.write(0x2000B1, bytes(16))
    bare = SparseLun(made.volume.size)
    _lun, start = made.volume.place(0)
    for page, data in made.volume.luns[0].pages.items():
        if start <= page * PAGE < start + bare.size:
            bare.write(page * PAGE - start, bytes(data))
    assert open_datastore([bare], SUBJECT).read_small("vm/vm.vmx") == VMX


VOLUME_FIELDS = {
    "magic": (0, "<I", 0x12345678, VmfsReason.NO_VOLUME),
    "vmfs-3": (4, "<I", 9, VmfsReason.VMFS_VERSION),
    "vmfs-7": (4, "<I", 25, VmfsReason.VMFS_VERSION),
    "block-size": (0xA1, "<Q", 3, VmfsReason.VMFS_VERSION),
    "blocks-of-8-MiB": (0xA1, "<Q", 8 << 20, VmfsReason.VMFS_VERSION),
    "sub-block": (0xD9, "<I", 0, VmfsReason.VMFS_VERSION),
    "alignment": (0x134, "<I", 512, VmfsReason.VMFS_VERSION),
    "large-block": (0x138, "<I", 63, VmfsReason.VMFS_VERSION),
    "of-another-volume": (0xB1, "<Q", 1, VmfsReason.WRONG_VOLUME),
    "groups-far-away": (0xD1, "<I", 2**31, VmfsReason.VMFS_DAMAGED),
    "no-clusters": (0xD5, "<I", 0, VmfsReason.VMFS_DAMAGED),
    "many-clusters": (0xD5, "<I", 2**31, VmfsReason.VMFS_DAMAGED),
}


@pytest.mark.parametrize(("offset", "form", "value", "reason"), VOLUME_FIELDS.values(), ids=VOLUME_FIELDS)
def test_a_volume_that_says_something_unusual_is_refused(
    offset: int, form: str, value: int, reason: VmfsReason
) -> None:
    made = built()
    made.volume.write(0x200000 + offset, struct.pack(form, value))
    assert refusal(lambda: opened(made)) == reason


@both
@pytest.mark.parametrize("field", range(6), ids=["per-cluster", "clusters", "groups-at", "size", "group-size", "total"])
@pytest.mark.parametrize("value", [0, 1, 2**32 - 1])
def test_an_absurd_resource_header_is_refused(version: int, field: int, value: int) -> None:
    made = built(version, lambda made: made.file("vm/vm.log", bytes(10_000), layout=Layout.SUB_BLOCKS))
    made.volume.write(made._sub_blocks.start + 4 * field, struct.pack("<I", value))
    if (field, value) == (5, 2**32 - 1):  # more than there are; where they end still follows from the file's size
        assert opened(made).read_small("vm/vm.vmx") == VMX
    else:
        expected = {VmfsReason.VMFS_DAMAGED, VmfsReason.BLOCK_OUTSIDE, VmfsReason.UNKNOWN_ADDRESS}
        assert refusal(lambda: opened(made).read_small("vm/vm.log")) in expected


FACTS = {
    "lock": (-4096, "<I", 0x10C00005, VmfsReason.VMFS_DAMAGED),
    "place": (-4096 + 4, "<Q", 77, VmfsReason.VMFS_DAMAGED),
    "address": (0, "<I", 0x104, VmfsReason.DESCRIPTOR_CHANGED),
    "generation": (4, "<I", 2, VmfsReason.DESCRIPTOR_CHANGED),
    "free": (8, "<I", 0, VmfsReason.VMFS_DAMAGED),
    "type": (12, "<I", 9, VmfsReason.VMFS_DAMAGED),
    "size": (0x14, "<Q", 1 << 60, VmfsReason.VMFS_DAMAGED),
    "larger-than-its-layout": (0x14, "<Q", 5000, VmfsReason.UNKNOWN_LAYOUT),
    "layout": (0x44, "<I", 4, VmfsReason.UNKNOWN_LAYOUT),
    "mark": (0x64, "<I", 0, VmfsReason.VMFS_DAMAGED),
}


@pytest.mark.parametrize(("offset", "form", "value", "reason"), FACTS.values(), ids=FACTS)
def test_a_file_descriptor_that_does_not_agree_is_refused(
    offset: int, form: str, value: int, reason: VmfsReason
) -> None:
    made = built()
    made.volume.write(made.at["vm/vm.vmx"] + 4096 + offset, struct.pack(form, value))
    assert refusal(lambda: opened(made).read_small("vm/vm.vmx")) == reason


def test_a_directory_within_itself_does_not_loop() -> None:
    def fill(made: VmfsBuilder) -> None:
        made._names["vm"].append(("again", made.addresses["vm"] >> 22, 2))

    fs = opened(built(6, fill))
    assert refusal(lambda: list(fs.walk())) == VmfsReason.DIRECTORY_DAMAGED


DIRECTORY_BYTES = {
    "count": (4, "<I", 99),
    "two-maps": (0xC, "<I", 2),
    "map-elsewhere": (0x10, "<I", 1000),
    "map-says-unused": (0x10040, "<B", 0x38),
    "kind-of-block": (0x11002, "<H", 2),
    "slots": (0x11004, "<H", 200),
    "all-free": (0x11008, "<Q", 2**64 - 1),
    "none-free": (0x11008, "<Q", 0),
    "place-of-entry": (0x11040 + 16, "<Q", 5),
    "name-with-slash": (0x11040 + 24, "<B", ord("/")),
    "no-name": (0x11040 + 24, "<B", 0),
}


@pytest.mark.parametrize(("offset", "form", "value"), DIRECTORY_BYTES.values(), ids=DIRECTORY_BYTES)
def test_a_damaged_directory_is_refused_and_never_shorter(offset: int, form: str, value: int) -> None:
    made = built()
    fs = opened(made)
    (run,) = fs.map(fs.lookup("vm")).runs(0, 1 << 30)
    made.volume.write(run.offset + offset, struct.pack(form, value))
    reason = refusal(lambda: opened(made).lookup("vm/vm.vmx"))
    assert reason in {VmfsReason.DIRECTORY_DAMAGED, VmfsReason.DIRECTORY_TOO_LARGE}


def test_a_directory_of_5_with_a_part_of_an_entry_is_refused() -> None:
    made = built(5)
    made.volume.write(made.at["vm"] + 512 + 0x14, struct.pack("<Q", 141))
    assert refusal(lambda: opened(made).lookup("vm/vm.vmx")) == VmfsReason.DIRECTORY_DAMAGED


def test_the_layout_of_a_file_is_told() -> None:
    fs = opened(built(6, lambda made: made.disk("vm/vm-flat.vmdk", 1 << 40, [1])))
    assert fs.lookup("vm/vm-flat.vmdk").layout is Layout.POINTER_BLOCKS
