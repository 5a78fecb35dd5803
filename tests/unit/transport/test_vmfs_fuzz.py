"""Any bytes in place of a volume's structures: an answer or a refusal, in bounded time and memory, never another error."""

import struct
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import ReadFailed, TransportRefused
from proxy.transport.vmfs import Subject, VmfsFile, VmfsReason, open_datastore
from proxy.transport.vmfs.fs_format import FileType
from proxy.units import KiB, MiB
from tests.unit.transport.vmfs_builder import DATA, HOLE, ZEROED, VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import PAGE, SparseLun, VolumeOnLuns

# Datastores with damage anywhere.
pytestmark = pytest.mark.slow

SUBJECT = Subject("san", "scsi0:0")
REASONS = frozenset(VmfsReason)

MOST_READS = 4000
"""A whole reading of the fixture takes a few hundred reads; a loop, or a walk over holes one by one, takes many more."""

fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def fixture(version: int) -> tuple[VmfsBuilder, tuple[int, ...]]:
    """A volume with a file of each layout, and where its structures are on LUN 0."""
    made = VmfsBuilder(VolumeOnLuns((1, 1), version=version), version=version)
    made.directory("vm")
    made.file("vm/vm.vmx", b"x" * 300)
    made.file("vm/log", b"y" * (3 * made.geometry.sub_block))
    made.disk("vm/direct", 4 * MiB, [DATA, HOLE, ZEROED, DATA])
    made.disk("vm/tables", 2000 * MiB, [DATA, HOLE, ZEROED, DATA])
    made.disk("vm/double", 8192 * 330 * MiB, [HOLE, DATA])
    made.finish()
    start = made.volume.start
    lvm = (0, 512, 1024, start + 0x100000, start + 0x101000, start + 0x100200, start + 0x180600, start + 0x182000)
    inside = [0x200000, *made.at.values(), made.geometry.root_at, made._descriptors.start, made._sub_blocks.start]
    inside += [made.geometry.root_at + number * made.geometry.descriptor_size for number in range(9)]
    inside += [made._sub_blocks.offset(number) for number in range(4)]
    return made, lvm + tuple(made.volume.place(offset)[1] for offset in inside)


def copy(luns: list[SparseLun]) -> list[SparseLun]:
    copies = []
    for lun in luns:
        copies.append(SparseLun(lun.size))
        copies[-1].pages = {page: bytearray(data) for page, data in lun.pages.items()}
    return copies


def exercise(luns: list[SparseLun]) -> str:
    """Reads all that can be read; the reason where something is refused."""
    try:
        fs = open_datastore(luns, SUBJECT)
        for path, file in fs.walk():
            if file.type is not FileType.REGULAR:
                continue
            with VmfsFile(fs, path) as source:
                assert sum(e.length for e in source.extents()) == source.size
                for place in source.places(0, min(source.size, 64 * MiB)):
                    assert place.lun < len(luns)
                source.read_into(0, memoryview(bytearray(min(source.size, 3 * MiB))))
                source.fingerprint()
    except TransportRefused as refused:
        assert refused.reason in REASONS
        return refused.reason
    except ReadFailed:
        return "read-failed"
    finally:
        assert sum(len(lun.reads) for lun in luns) < MOST_READS
    return ""


@pytest.mark.parametrize("version", [5, 6])
def test_the_fixture_itself_is_read_without_refusal(version: int) -> None:
    made, _places = fixture(version)
    assert exercise(copy(made.volume.luns)) == ""


numbers = st.one_of(
    st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]), st.integers(0, 70_000)
)


@pytest.mark.parametrize("version", [5, 6])
@fuzz
@given(data=st.data())
def test_any_number_in_any_structure_is_an_answer_or_a_refusal(version: int, data: st.DataObject) -> None:
    made, places = fixture(version)
    luns = copy(made.volume.luns)
    for _change in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places)) + data.draw(st.integers(0, 700))
        form = data.draw(st.sampled_from(["<Q", "<I", "<H", "<B"]))
        luns[0].write(place, struct.pack(form, data.draw(numbers) % (1 << 8 * struct.calcsize(form))))
    assert exercise(luns) in {"", "read-failed", *REASONS}


@pytest.mark.parametrize("version", [5, 6])
@fuzz
@given(data=st.data())
def test_any_bytes_over_the_pointers_are_an_answer_or_a_refusal(version: int, data: st.DataObject) -> None:
    made, _places = fixture(version)
    luns = copy(made.volume.luns)
    name = data.draw(st.sampled_from(["vm/direct", "vm/tables", "vm/double", "vm/log", "vm"]))
    at = made.volume.place(made.at[name] + made.geometry.pointers_at)[1]
    luns[0].write(at, data.draw(st.binary(min_size=1, max_size=64)))
    assert exercise(luns) in {"", "read-failed", *REASONS}


@fuzz
@given(page=st.integers(0, 400), filling=st.sampled_from([b"\0", b"\xff", b"\1", b"\x5e\xf1\xab\x2f"]))
def test_a_lost_page_is_an_answer_or_a_refusal(page: int, filling: bytes) -> None:
    made, _places = fixture(6)
    luns = copy(made.volume.luns)
    held = sorted(luns[0].pages)
    luns[0].pages[held[page % len(held)]] = bytearray(filling * (PAGE // len(filling)))
    assert exercise(luns) in {"", "read-failed", *REASONS}


@fuzz
@given(size=st.integers(0, 300 * MiB))
def test_a_lun_that_is_cut_off_is_refused(size: int) -> None:
    made, _places = fixture(6)
    luns = copy(made.volume.luns)
    cut = SparseLun(min(size, luns[0].size - MiB))
    cut.pages = {page: data for page, data in luns[0].pages.items() if (page + 1) * PAGE <= cut.size}
    assert exercise([cut, luns[1]]) in {*REASONS} - {""}


@fuzz
@given(noise=st.binary(max_size=8 * KiB))
def test_noise_is_no_volume(noise: bytes) -> None:
    lun = SparseLun(64 * MiB)
    lun.write(0, noise)
    assert exercise([lun]) in REASONS
