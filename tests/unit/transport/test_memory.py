"""What the shipped fakes can do beside their ports; the ports are in ``tests/contract``."""

import pytest

from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused, WriteFailed
from proxy.extents import Extent, Kind
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.model import DeviceAddress, FileAddress, Format, FrozenDisk, Layer, SnapshotRequest
from proxy.transport.memory import BLOCK, Faults, MemorySource, MemoryTarget, MemoryTransport


def test_the_nth_call_from_now_fails_and_the_next_works_again() -> None:
    source = MemorySource(b"0123")
    buffer = memoryview(bytearray(2))
    source.read_into(0, buffer)
    source.faults.fail(2, ReadFailed("memory", 0, 2, "broken"))
    source.read_into(0, buffer)
    with pytest.raises(ReadFailed, match="broken"):
        source.read_into(0, buffer)
    source.read_into(2, buffer)
    assert bytes(buffer) == b"23"
    assert source.faults.calls == [("read", 0, 2)] * 3 + [("read", 2, 2)]


def test_a_write_that_fails_changes_nothing() -> None:
    target = MemoryTarget(8, fill=b"-")
    target.faults.fail(1, WriteFailed("memory", 0, 2, "broken"))
    with pytest.raises(WriteFailed):
        target.write(0, memoryview(b"ab"))
    assert target.data == b"-" * 8


def test_what_was_not_flushed_would_not_survive() -> None:
    target = MemoryTarget(4, fill=b"-")
    target.write(0, memoryview(b"ab"))
    assert target.flushed == b"----"
    target.flush()
    target.zero(0, 1)
    assert (target.flushed, bytes(target.data)) == (b"ab--", b"\0b--")


def test_zeroes_are_told_as_zero_extents() -> None:
    source = MemorySource(bytes(2 * BLOCK) + b"x" + bytes(BLOCK))
    assert source.extents() == [
        Extent(0, 2 * BLOCK, Kind.ZERO),
        Extent(2 * BLOCK, BLOCK),
        Extent(3 * BLOCK, 1, Kind.ZERO),
    ]


def test_changes_are_those_that_were_given_cut_to_the_disk() -> None:
    source = MemorySource(bytes(100), changes={"mark": [Extent(90, 100), Extent(0, 5, Kind.ZERO)]})
    assert source.changed("mark") == [Extent(0, 5), Extent(90, 10)]
    with pytest.raises(ChangesUnknown):
        source.changed("other")


def test_the_transport_serves_what_the_memory_hypervisor_froze() -> None:
    hypervisor = MemoryHypervisor()
    machine = hypervisor.add("web", {"vda": b"before" + bytes(BLOCK)})
    snapshot = hypervisor.snapshot(SnapshotRequest("run-1", machine, ("vda",)))
    hypervisor.write(machine, "vda", 0, b"after!")
    transport = MemoryTransport(hypervisor.disk_bytes)
    with transport.open(snapshot.disks[0]) as source:
        buffer = bytearray(6)
        source.read_into(0, memoryview(buffer))
        assert buffer == b"before"
        assert source.identity == "memory:vda"
    assert transport.opened[0].closed


def frozen(location: FileAddress | DeviceAddress, size: int = 4) -> FrozenDisk:
    return FrozenDisk("vda", size, (Layer(location, Format.RAW),))


@pytest.mark.parametrize(
    ("disk", "reason"),
    [
        (frozen(FileAddress("other")), "not-found"),
        (frozen(FileAddress("disk"), 5), "size-mismatch"),
        (frozen(DeviceAddress("/dev/sda")), "not-in-memory"),
    ],
)
def test_the_transport_refuses_what_it_cannot_serve(disk: FrozenDisk, reason: str) -> None:
    with pytest.raises(TransportRefused) as refused:
        MemoryTransport({"disk": b"0123"}.__getitem__).open(disk)
    assert refused.value.reason == reason


def test_the_transport_refuses_and_fails_as_it_was_told() -> None:
    faults = Faults()
    transport = MemoryTransport({"disk": b"0123"}.__getitem__, mode="lan", faults=faults)
    transport.refused["vda"] = "lun-not-presented"
    with pytest.raises(TransportRefused) as refused:
        transport.probe(frozen(FileAddress("disk")))
    assert (refused.value.mode, refused.value.reason) == ("lan", "lun-not-presented")
    transport.refused.clear()
    faults.fail(1, ReadFailed("memory", 0, 0, "gone"))
    with pytest.raises(ReadFailed, match="gone"):
        transport.open(frozen(FileAddress("disk")))
