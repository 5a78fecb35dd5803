"""The fabric and the transport against a real tgtd: who a LUN is, which target serves it, what is refused, what is a hole."""

import hashlib
import os
from pathlib import Path

import pytest

from proxy import command
from proxy.errors import ReadFailed, TransportRefused
from proxy.extents import Kind, is_map, total
from proxy.model import DeviceAddress, FileAddress, Format, FrozenDisk, Layer, LunAddress
from proxy.transport.iscsi import Limits
from proxy.transport.raw import SharedFiles
from proxy.transport.san import Access, LunSource, SanFabric, SanTransport
from proxy.units import MiB
from tests.integration.transport.tgt_array import BACKUP, HOSTS, RESTORE, Array, disk_image

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root")]

NAME = "t10.lanfree-lun-0001"
QUICK = Limits(timeout=2, login_timeout=2)


@pytest.fixture
def fabric(served: Array, tmp_path: Path) -> SanFabric:
    backup = served.san_target(BACKUP, tmp_path / "secret")
    restore = served.san_target(RESTORE, tmp_path / "unused", Access.RESTORE)
    return SanFabric([restore, backup], QUICK)


def disk(address: LunAddress | DeviceAddress | FileAddress, size: int = 32 * MiB) -> FrozenDisk:
    return FrozenDisk("vda", size, (Layer(address, Format.RAW),))


def test_a_lun_has_the_same_name_in_every_target_that_presents_it(
    served: Array, fabric: SanFabric, image: Path
) -> None:
    served.lun(2, 7, image, "lanfree-lun-0001")  # and under another number
    by_number = {lun: unit.names for lun, unit in fabric.units(fabric.targets[1]).items()}
    assert by_number == {1: (NAME,), 7: (NAME,)}
    assert {lun: unit.names for lun, unit in fabric.units(fabric.targets[0]).items()} == {1: (NAME,)}


@pytest.mark.parametrize(
    "address",
    [LunAddress(HOSTS, 1), LunAddress(HOSTS, 1, name=NAME), DeviceAddress("/dev/sdx", NAME), LunAddress(BACKUP, 1)],
    ids=["number of the hosts' target", "number and name", "name alone", "number of the proxy's own target"],
)
def test_the_disk_of_a_host_is_read_from_the_backup_target(
    fabric: SanFabric, image: Path, address: LunAddress | DeviceAddress
) -> None:
    assert fabric.resolve(address).target.iqn == BACKUP
    transport = SanTransport(fabric)
    transport.probe(disk(address))
    with transport.open(disk(address)) as source:
        assert (source.size, source.identity) == (32 * MiB, NAME)
        data = bytearray(source.size)
        source.read_into(0, memoryview(data))
    assert hashlib.sha256(data).digest() == hashlib.sha256(image.read_bytes()).digest()


def test_the_array_counts_what_a_backup_read_and_not_one_write(
    served: Array, fabric: SanFabric, tmp_path: Path
) -> None:
    served.lun(2, 2, disk_image(tmp_path / "rw.img"), "lanfree-lun-0002", readonly=False)  # writable, if we dared
    with SanTransport(fabric).open(disk(LunAddress(HOSTS, 2))) as source:
        buffer = memoryview(bytearray(MiB))
        for extent in source.extents():
            for offset in range(extent.start, extent.end if extent.kind is Kind.DATA else extent.start, MiB):
                source.read_into(offset, buffer[: min(MiB, extent.end - offset)])
        read, written, write_commands = served.counted(2, 2)
    assert 2 * MiB + 65536 <= read < 2 * MiB + 65536 + 131072  # the data, and room for what tells about them
    assert (written, write_commands) == (0, 0)


def test_a_unit_that_only_a_restore_target_presents_is_read_from_there(
    served: Array, fabric: SanFabric, tmp_path: Path
) -> None:
    served.lun(3, 5, disk_image(tmp_path / "five.img"), "lanfree-lun-0005")
    assert fabric.resolve(DeviceAddress("/dev/sdx", "t10.lanfree-lun-0005")).target.iqn == RESTORE


def test_a_restore_target_is_not_the_second_choice_when_the_backup_target_refuses_us(
    served: Array, fabric: SanFabric, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("changed-on-our-side")
    with pytest.raises(TransportRefused) as refused:
        fabric.resolve(LunAddress(HOSTS, 1))
    assert refused.value.reason == "chap-rejected"
    assert "changed-on-our-side" not in str(refused.value) + refused.value.hint


def test_a_name_that_does_not_fit_the_number_is_refused(fabric: SanFabric) -> None:
    with pytest.raises(TransportRefused) as refused:
        SanTransport(fabric).probe(disk(LunAddress(HOSTS, 1, name="naa.600a0b80001111110000000000000001")))
    assert refused.value.reason == "lun-identity"
    assert NAME in str(refused.value)


def test_a_number_that_nobody_presents_is_refused_with_what_there_is(fabric: SanFabric) -> None:
    with pytest.raises(TransportRefused, match="shows 1 and not 2") as refused:
        SanTransport(fabric).open(disk(LunAddress(HOSTS, 2)))
    assert refused.value.reason == "lun-missing"
    with pytest.raises(TransportRefused) as elsewhere:
        SanTransport(fabric).open(disk(LunAddress("iqn.2026-11.test.other:array", 1)))
    assert elsewhere.value.reason == "no-target-presents-it"


def test_a_lun_that_was_mapped_later_is_found_without_a_restart(
    served: Array, fabric: SanFabric, tmp_path: Path
) -> None:
    assert list(fabric.units(fabric.targets[1])) == [1]
    served.lun(2, 2, disk_image(tmp_path / "two.img"), "lanfree-lun-0002")
    fabric._scans = {target: type(scan)(scan.units, scan.at - 60) for target, scan in fabric._scans.items()}
    assert fabric.resolve(LunAddress(HOSTS, 2)).identity.name == "t10.lanfree-lun-0002"


def test_another_unit_under_the_old_number_is_not_read(served: Array, fabric: SanFabric, tmp_path: Path) -> None:
    found = fabric.resolve(LunAddress(HOSTS, 1))
    served.unmap_lun(2, 1)
    served.lun(2, 1, disk_image(tmp_path / "other.img"), "lanfree-lun-0099", readonly=True)
    with pytest.raises(TransportRefused) as refused:
        fabric.open_presented(found)
    assert refused.value.reason == "lun-identity"


def test_holes_of_the_backing_file_are_zero_extents_and_nothing_else_is(fabric: SanFabric, image: Path) -> None:
    with LunSource(fabric.open(LunAddress(HOSTS, 1))) as source:
        assert source.can_report_extents
        found = source.extents()
        assert is_map(found, source.size)
        truth = image.read_bytes()
        for extent in found:
            data = truth[extent.start : extent.end]
            assert (extent.kind is Kind.ZERO) == (not any(data)), extent
        with image.open("rb") as f:
            allocated, position = 0, 0
            while position < len(truth):
                start = os.lseek(f.fileno(), position, os.SEEK_DATA)
                position = os.lseek(f.fileno(), start, os.SEEK_HOLE)
                allocated += position - start
        assert total(found, Kind.DATA) == allocated == 2 * MiB + 65536


def test_an_array_without_thin_provisioning_gives_one_data_extent(array: Array, image: Path, tmp_path: Path) -> None:
    array.target(2, BACKUP, chap=True)
    array.lun(2, 1, image, "lanfree-lun-0001", thin=False)
    fabric = SanFabric([array.san_target(BACKUP, tmp_path / "secret")], QUICK)
    with LunSource(fabric.open(LunAddress(HOSTS, 1))) as source:
        assert not source.can_report_extents
        assert [(e.start, e.length, e.kind) for e in source.extents()] == [(0, 32 * MiB, Kind.DATA)]


def test_an_overlay_in_a_shared_directory_lies_above_a_lun(fabric: SanFabric, image: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "shared" / "vda.overlay"
    overlay.parent.mkdir()
    command.run(["qemu-img", "create", "-q", "-f", "qcow2", overlay, "32M"], timeout=20)
    command.run(["qemu-io", "-c", "write -P 0x5a 4M 64k", overlay], timeout=20)
    chain = FrozenDisk(
        "vda",
        32 * MiB,
        (Layer(FileAddress(str(overlay)), Format.QCOW2), Layer(LunAddress(HOSTS, 1), Format.RAW)),
    )
    with pytest.raises(TransportRefused) as refused:
        SanTransport(fabric).probe(chain)
    assert refused.value.reason == "path-not-shared"
    truth = bytearray(image.read_bytes())
    truth[4 * MiB : 4 * MiB + 65536] = b"\x5a" * 65536
    with SanTransport(fabric, SharedFiles([overlay.parent])).open(chain) as source:
        data = bytearray(source.size)
        source.read_into(0, memoryview(data))
    assert data == truth


def test_a_disk_with_no_layer_on_a_lun_is_left_to_other_transports(fabric: SanFabric, image: Path) -> None:
    transport = SanTransport(fabric, SharedFiles([image.parent]))
    with pytest.raises(TransportRefused) as refused:
        transport.probe(disk(FileAddress(str(image))))
    assert refused.value.reason == "not-on-san"


def test_a_dead_array_is_a_failed_read_and_then_a_refusal(served: Array, fabric: SanFabric) -> None:
    transport = SanTransport(fabric)
    source = transport.open(disk(LunAddress(HOSTS, 1)))
    served.kill()
    with source, pytest.raises(ReadFailed):
        source.read_into(0, memoryview(bytearray(MiB)))
    with pytest.raises(TransportRefused) as refused:
        transport.open(disk(LunAddress(HOSTS, 1)))
    assert refused.value.reason == "portal-unreachable"
