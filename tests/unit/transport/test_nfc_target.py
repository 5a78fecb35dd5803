"""Restores by import: disks go up front to back whatever order their pieces come in, and a machine is whole or gone."""

import itertools
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import HypervisorError, ReadFailed, RestoreRefused, WriteFailed
from proxy.extents import Extent
from proxy.model import LunAddress
from proxy.ports import BlockTarget, DiskPlace
from proxy.transfer import copy
from proxy.transport import nfc_target
from proxy.transport.memory import MemorySource
from proxy.transport.nfc import HostBudget
from proxy.transport.nfc_order import GrainOrder
from proxy.transport.nfc_target import ImportTargets
from proxy.transport.vmdk.stream_format import GRAIN
from proxy.units import KiB, MiB
from tests.unit.transport.nfc_host import ImportingHost

pytestmark = pytest.mark.slow

SIZE = 5 * MiB + 512
FIRST = DiskPlace(datastore="ds", disk="scsi0:0")
SECOND = DiskPlace(datastore="ds", disk="scsi0:1")
SMALL = 12 * GRAIN + 512
NOISE = random.Random(1).randbytes(SMALL)


@pytest.fixture
def host() -> ImportingHost:
    return ImportingHost()


def targets(host: ImportingHost) -> ImportTargets:
    return ImportTargets(host.begin, host.export, "web-01")


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def written(target: BlockTarget, data: bytes, *, step: int = MiB) -> None:
    for start in range(0, len(data), step):
        target.write(start, memoryview(data)[start : start + step])


def test_a_disk_goes_up_and_reads_back_as_it_was_written(host: ImportingHost) -> None:
    data = noise(SIZE)
    with targets(host) as places:
        with places.open(FIRST, SIZE, overwrite=False) as target:
            assert (target.size, target.identity) == (SIZE, "[ds] scsi0:0 of web-01")
            written(target, data)
            target.flush()
            target.flush()
        with places.read_back(FIRST, SIZE) as source:
            back = bytearray(SIZE)
            source.read_into(0, memoryview(back))
    assert back == data
    assert host.state == "complete"


def test_opening_alone_makes_nothing(host: ImportingHost) -> None:
    with targets(host) as places:
        for place in (FIRST, SECOND):
            places.open(place, SIZE, overwrite=False).close()
    assert host.begun == 0


def test_the_machine_is_complete_only_after_its_last_disk(host: ImportingHost) -> None:
    with targets(host) as places:
        for place in (FIRST, SECOND):
            places.open(place, SIZE, overwrite=False).close()  # the restore looks at all places first
        with places.open(FIRST, SIZE, overwrite=False) as target:
            written(target, noise(SIZE))
            target.flush()
        assert host.state == "ready"
        assert host.sizes == {"scsi0:0": SIZE, "scsi0:1": SIZE}
        with pytest.raises(ReadFailed, match="not complete"):
            places.read_back(FIRST, SIZE)
        with places.open(SECOND, SIZE, overwrite=False) as target:
            target.zero(0, SIZE)
            target.flush()
        assert host.state == "complete"
    assert host.begun == 1
    assert host.disk("scsi0:0") == noise(SIZE)
    assert host.disk("scsi0:1") == bytes(SIZE)
    assert host.shares == sorted(host.shares)
    assert host.shares[-1] == 1.0


def test_workers_of_a_copy_bring_every_byte_in_order(host: ImportingHost) -> None:
    data = bytes(MiB) + noise(SIZE - MiB)
    with targets(host) as places, places.open(FIRST, SIZE, overwrite=False) as target:
        source = MemorySource(data)
        copy(source, target, [Extent(0, SIZE)], disk="scsi0:0", workers=6, segment=256 * KiB)
        target.flush()
    assert host.disk("scsi0:0") == data


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, SMALL - 1), max_size=12, unique=True), st.randoms(use_true_random=False))
def test_pieces_of_any_length_in_any_order_make_the_disk(cuts: list[int], chosen: random.Random) -> None:
    host, data = ImportingHost(), bytearray(NOISE)
    edges = [0, *sorted(cuts), SMALL]
    pieces = list(itertools.pairwise(edges))
    chosen.shuffle(pieces)
    with targets(host) as places, places.open(FIRST, SMALL, overwrite=False) as target:
        for number, (start, end) in enumerate(pieces):
            if number % 4 == 1:
                data[start:end] = bytes(end - start)
                target.zero(start, end - start)
            elif number % 4 == 2:
                data[start:end] = bytes(end - start)  # never written: it is a new disk
            else:
                target.write(start, memoryview(data)[start:end])
        target.flush()
    assert host.disk("scsi0:0") == data


def test_zeroes_do_not_go_up(host: ImportingHost) -> None:
    with targets(host) as places, places.open(FIRST, 64 * MiB, overwrite=False) as target:
        target.write(0, memoryview(bytes(16 * MiB)))
        target.write(16 * MiB, memoryview(b"x" * 512))
        target.zero(16 * MiB + 512, 48 * MiB - 512)
        target.flush()
    assert len(host.taken["scsi0:0"]) < 100 * KiB


# --- faults ---


def test_a_host_that_hangs_up_fails_the_write_and_the_machine_goes(host: ImportingHost) -> None:
    host.fails_at = MiB
    with targets(host) as places:
        other = places.open(SECOND, SIZE, overwrite=False)
        with places.open(FIRST, SIZE, overwrite=False) as target:
            with pytest.raises(WriteFailed, match="hung up"):
                written(target, noise(SIZE))
            with pytest.raises(WriteFailed, match="hung up"):
                target.flush()
        with pytest.raises(WriteFailed, match="scsi0:0 could not be written"):
            other.write(0, memoryview(bytes(512)))
        with pytest.raises(WriteFailed, match="scsi0:0 could not be written"):
            places.open(FIRST, SIZE, overwrite=False)
    assert host.state == "gone"


def test_a_disk_that_is_closed_before_its_end_takes_the_machine_away(host: ImportingHost) -> None:
    with targets(host) as places:
        with places.open(FIRST, SIZE, overwrite=False) as target:
            target.write(0, memoryview(noise(MiB)))
        assert host.state == "gone"


def test_a_restore_that_ends_before_its_last_disk_takes_the_machine_away(host: ImportingHost) -> None:
    with targets(host) as places:
        places.open(SECOND, SIZE, overwrite=False).close()
        with places.open(FIRST, SIZE, overwrite=False) as target:
            written(target, noise(SIZE))
            target.flush()
        assert host.state == "ready"
    assert host.state == "gone"


def test_a_refused_machine_is_told_as_it_is(host: ImportingHost) -> None:
    host.refuses = HypervisorError("import of web-01", "the datastore is full")
    with targets(host) as places, places.open(FIRST, SIZE, overwrite=False) as target:
        with pytest.raises(HypervisorError, match="datastore is full"):
            target.write(0, memoryview(noise(512)))
        with pytest.raises(WriteFailed, match="datastore is full"):
            target.write(0, memoryview(noise(512)))


def test_nobody_waits_for_ever_for_a_piece_that_does_not_come(
    host: ImportingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nfc_target, "WAITING_LIMIT", MiB)
    monkeypatch.setattr(nfc_target, "ORDER_PATIENCE", 0.2)
    with targets(host) as places, places.open(FIRST, SIZE, overwrite=False) as target:
        target.write(MiB, memoryview(noise(MiB // 2)))
        with pytest.raises(WriteFailed, match="0 was not written"):
            target.write(2 * MiB, memoryview(noise(MiB)))
    assert host.state == "gone"


def test_who_waits_goes_on_when_the_missing_piece_came(host: ImportingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfc_target, "WAITING_LIMIT", MiB)
    data = noise(SIZE)
    with targets(host) as places, places.open(FIRST, SIZE, overwrite=False) as target:
        late = threading.Thread(target=target.write, args=(MiB, memoryview(data)[MiB:]))
        late.start()
        while not target._order.waiting > MiB:  # type: ignore[attr-defined]
            late.join(0.01)
        target.write(0, memoryview(data)[:MiB])
        late.join(30)
        assert not late.is_alive()
        target.flush()
    assert host.disk("scsi0:0") == data


def test_what_has_gone_up_is_not_written_again(host: ImportingHost) -> None:
    with targets(host) as places, places.open(FIRST, SIZE, overwrite=False) as target:
        target.write(0, memoryview(noise(MiB)))
        with pytest.raises(WriteFailed, match="gone up already"):
            target.write(GRAIN, memoryview(bytes(GRAIN)))


@pytest.mark.parametrize(("offset", "length"), [(SIZE - 1, 2), (SIZE, 512), (-512, 512), (0, SIZE + 512)])
def test_what_leaves_the_disk_is_refused(host: ImportingHost, offset: int, length: int) -> None:
    with targets(host) as places, places.open(FIRST, SIZE, overwrite=False) as target:
        with pytest.raises(WriteFailed):
            target.write(offset, memoryview(bytes(length)))
        with pytest.raises(WriteFailed):
            target.zero(offset, length)
    assert host.begun == 0


def test_places_that_are_none_of_a_new_machine_are_refused(host: ImportingHost) -> None:
    with targets(host) as places:
        for place in (DiskPlace(path="/a"), DiskPlace(datastore="ds", path="a/b.vmdk"), DiskPlace(target="iqn", lun=1)):
            with pytest.raises(RestoreRefused):
                places.open(place, SIZE, overwrite=True)
        for size in (0, 100, SIZE + 1):
            with pytest.raises(RestoreRefused):
                places.open(FIRST, size, overwrite=False)
        assert not places.holds(FIRST, LunAddress("iqn", 1))
        assert not places.cannot_tell(FIRST, LunAddress("iqn", 1))


def test_an_upload_counts_against_its_hosts_budget(host: ImportingHost) -> None:
    budget = HostBudget(1, patience=0.05)
    with budget.connection("esx1"), ImportTargets(host.begin, host.export, "web-01", budget) as places:
        target = places.open(FIRST, SIZE, overwrite=False)
        with pytest.raises(WriteFailed, match="all 1 connections"):
            target.write(0, memoryview(noise(512)))
    assert host.state == "gone"


def test_order_counts_what_it_keeps() -> None:
    order = GrainOrder(8 * GRAIN)
    order.part(3 * GRAIN, memoryview(b"x" * 100))
    order.whole(GRAIN, 2 * GRAIN, b"packed")
    assert (order.waiting, order.position, order.ready()) == (GRAIN + 6, 0, [])
    order.zero(0, GRAIN)
    assert order.ready() == [(GRAIN, b"packed")]
    assert (order.waiting, order.position) == (GRAIN, 2 * GRAIN)
    order.no_more()
    assert [start for start, _ in order.ready()] == [3 * GRAIN]
    assert (order.waiting, order.position) == (0, 8 * GRAIN)
