"""One transport of a mode, chosen by where a disk lies."""

import pytest

from proxy.errors import TransportRefused
from proxy.model import FileAddress, Format, FrozenDisk, Layer, Location, VmdkAddress
from proxy.ports import Transport
from proxy.transport.by_place import ByPlace
from proxy.transport.memory import MemoryTransport


def disk(place: Location) -> FrozenDisk:
    return FrozenDisk("vda", 4, (Layer(place, Format.RAW),))


def test_each_disk_goes_to_the_transport_of_its_place() -> None:
    files = MemoryTransport({"a": b"file"}.__getitem__)

    def choose(place: Location) -> Transport | None:
        return files if isinstance(place, FileAddress) else None

    transport = ByPlace("san", choose)
    transport.probe(disk(FileAddress("a")))
    with transport.open(disk(FileAddress("a"))) as source:
        out = bytearray(4)
        source.read_into(0, memoryview(out))
        assert bytes(out) == b"file"
    for act in (transport.probe, transport.open):
        with pytest.raises(TransportRefused, match="VmdkAddress") as refused:
            act(disk(VmdkAddress("ds1", "vm/vm.vmdk")))
        assert refused.value.reason == "no-transport-for-place"
    with pytest.raises(TransportRefused, match="nowhere"):
        transport.probe(FrozenDisk("vda", 4, ()))
