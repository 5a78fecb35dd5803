"""LUNs by name: the fabric first, then the kernel; several sessions of one unit."""

import threading
from pathlib import Path

import pytest

from proxy.errors import ReadFailed, TransportRefused
from proxy.transport.iscsi import Limits, Lun
from proxy.transport.iscsi.vpd import Identity
from proxy.transport.raw import SharedFiles
from proxy.transport.san import SanFabric, SanTarget
from proxy.transport.vmfs_san.luns import SessionsLun, SiteLuns
from tests.unit.transport.test_iscsi_lun import BLOCKS, Device, SenseKey, opened, sense

NAME = "naa.600a0b80001111110000000000000001"
TARGET = SanTarget("iqn.x:backup", ("127.0.0.1:1",), "iqn.x:proxy")


def kernel(by_id: Path, *links: str) -> SharedFiles:
    for link in links:
        (by_id / link).write_bytes(b"")
    return SharedFiles((), by_id)


def test_a_lun_that_no_target_presents_is_looked_for_in_the_kernel(tmp_path: Path) -> None:
    files = kernel(tmp_path, f"dm-uuid-mpath-3{NAME[4:]}")
    SiteLuns(SanFabric([]), files).find(NAME)
    with pytest.raises(TransportRefused) as refused:
        SiteLuns(SanFabric([]), files).open(NAME)
    assert refused.value.reason == "not-a-file-or-device"  # found, and not a block device: the test has none


def test_a_lun_that_nobody_has_is_refused_with_what_the_fabric_says(tmp_path: Path) -> None:
    with pytest.raises(TransportRefused) as refused:
        SiteLuns(SanFabric([]), kernel(tmp_path)).find(NAME)
    assert refused.value.reason == "no-target-presents-it"
    assert NAME in str(refused.value)


def test_a_lun_of_the_fabric_is_not_looked_for_in_the_kernel(tmp_path: Path) -> None:
    fabric = SanFabric([TARGET], scan=lambda _target: {3: Identity((NAME,))})
    SiteLuns(fabric, kernel(tmp_path)).find(NAME)


def test_a_t10_name_is_found_with_the_padding_that_hosts_write() -> None:
    fabric = SanFabric([TARGET], scan=lambda _target: {3: Identity(("t10.ATA_____QEMU_HARDDISK___QM00013",))})
    SiteLuns(fabric).find("t10.ATA_____QEMU_HARDDISK___QM00013_____________")


def test_a_target_that_does_not_let_us_in_is_told_and_not_gone_round(tmp_path: Path) -> None:
    def silent(_target: SanTarget) -> dict[int, Identity]:
        raise ReadFailed("array", 0, 0, "gone")

    files = kernel(tmp_path, f"wwn-0x{NAME[4:]}")
    with pytest.raises(TransportRefused) as refused:
        SiteLuns(SanFabric([TARGET], Limits(), silent), files).find(NAME)
    assert refused.value.reason == "lun-missing"


def test_a_name_that_is_not_unique_in_the_world_finds_nothing() -> None:
    local = Identity((), ("naa.30000001",))
    with pytest.raises(TransportRefused) as refused:
        SiteLuns(SanFabric([TARGET], scan=lambda _target: {3: local})).find("naa.30000001")
    assert refused.value.reason == "no-target-presents-it"


class Slow(Device):
    """A disk whose reads wait for ``go``."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.began = threading.Event()

    def execute(self, command: object) -> object:  # type: ignore[override]
        outcome = super().execute(command)  # type: ignore[arg-type]
        if self.reads:
            self.began.set()
            assert self.go.wait(10)
        return outcome


def test_a_read_goes_to_the_session_that_has_least_to_do() -> None:
    slow, quick = Slow(), Device()
    lun = SessionsLun([opened(slow), opened(quick)])
    first = threading.Thread(target=lambda: lun.read_into(0, memoryview(bytearray(512))))
    first.start()
    assert slow.began.wait(10)
    for _ in range(3):
        lun.read_into(0, memoryview(bytearray(512)))
    assert (slow.reads, quick.reads) == (1, 3)
    slow.go.set()
    first.join(10)
    lun.read_into(0, memoryview(bytearray(512)))
    assert slow.reads == 2


def test_a_session_whose_read_failed_is_used_again() -> None:
    device = Device(sense(SenseKey.MEDIUM_ERROR))
    lun = SessionsLun([opened(device), opened(Device())])
    with pytest.raises(ReadFailed):
        lun.read_into(0, memoryview(bytearray(512)))
    lun.read_into(0, memoryview(bytearray(512)))
    assert device.reads == 2


def test_it_has_the_size_of_the_unit_and_closes_every_session() -> None:
    sessions: list[Lun] = [opened(Device()), opened(Device())]
    with SessionsLun(sessions) as lun:
        assert lun.size == BLOCKS * 512
    for session in sessions:
        with pytest.raises(ReadFailed):
            session.read_into(0, memoryview(bytearray(512)))


def test_several_ranges_are_read_in_one_go_and_cut_to_what_was_asked_for() -> None:
    device = Device()
    lun = opened(device)
    views = [memoryview(bytearray(b"\xa5" * n)) for n in (512, 100, 0, 1024)]
    lun.read_pieces(list(zip([0, 700, 5, 1024], views, strict=True)))
    assert device.reads == 3
    assert [bytes(view).strip(b"\0") for view in views] == [b"\xa5" * 512, b"", b"", b"\xa5" * 1024]
    with pytest.raises(ReadFailed):
        lun.read_pieces([(0, views[0]), (BLOCKS * 512 - 1, views[1])])
