"""A host that exports and imports disks, in memory: the other side of ``proxy.transport.nfc`` and ``nfc_target``."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from proxy.errors import HypervisorError
from proxy.model import Format, FrozenDisk, Layer, VmdkAddress
from proxy.transport.vmdk.stream_format import GRAIN
from proxy.transport.vmdk.stream_reader import StreamReader
from proxy.transport.vmdk.stream_writer import StreamWriter, pack_grain


def written(disk: bytes) -> bytes:
    """The disk as a stream."""
    stream = io.BytesIO()
    writer = StreamWriter(stream.write, len(disk), "disk.vmdk")
    for start in range(0, len(disk), GRAIN):
        packed = pack_grain(start, memoryview(disk)[start : start + GRAIN])
        if packed is not None:
            writer.put(start, packed)
    writer.finish()
    return stream.getvalue()


def read(raw: bytes) -> bytes:
    """The disk that a stream holds."""
    reader = StreamReader(io.BytesIO(raw), "the stream")
    disk = bytearray(reader.size)
    for grain in reader.grains():
        disk[grain.start : grain.end] = grain.unpack("the stream")
    return bytes(disk)


def frozen(size: int, key: str = "scsi0:0") -> FrozenDisk:
    """A disk of a machine that a snapshot holds."""
    address = VmdkAddress("ds", f"vm/{key.replace(':', '-')}.vmdk", machine="vm-1", snapshot="snapshot-1", device=2000)
    return FrozenDisk(key, size, (Layer(address, Format.VMDK),))


class Stream(io.BytesIO):
    """A host's answer that may break: ``ends_at`` bytes, or with ``lost`` an error there."""

    def __init__(self, raw: bytes, lost_at: int | None = None) -> None:
        super().__init__(raw)
        self.lost_at = lost_at

    def read(self, length: int | None = -1, /) -> bytes:
        if self.lost_at is not None and self.tell() + (length or 0) > self.lost_at:
            raise ConnectionResetError("connection reset by the host")
        return super().read(length)


class Host:
    """Exports the disks that it has (path of the descriptor -> stream), and counts."""

    def __init__(self, streams: Mapping[str, bytes] | None = None) -> None:
        self.name = "esx1"
        self.streams = dict(streams or {})
        self.opened = 0
        self.running = 0
        self.shares: list[float] = []
        self.lost_at: int | None = None
        self.refuses: Exception | None = None
        self.lasts: list[Stream] = []

    @contextmanager
    def export(self, address: VmdkAddress) -> Iterator["HostDisk"]:
        if address.path not in self.streams:
            raise HypervisorError(f"export of {address.path}", "no such disk")
        self.running += 1
        try:
            yield HostDisk(self, self.streams[address.path])
        finally:
            self.running -= 1


class HostDisk:
    """One disk of a host's export."""

    def __init__(self, host: Host, raw: bytes) -> None:
        self.host = host.name
        self._host = host
        self._raw = raw

    def open(self) -> Stream:
        if self._host.refuses is not None:
            raise self._host.refuses
        self._host.opened += 1
        self._host.lasts.append(Stream(self._raw, self._host.lost_at))
        return self._host.lasts[-1]

    def progress(self, share: float) -> None:
        self._host.shares.append(share)


class ImportingHost(Host):
    """Takes the disks of a machine in the making; when it is complete, they can be exported."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}
        self.taken: dict[str, bytes] = {}
        self.state = "nothing"
        self.fails_at: int | None = None
        self.begun = 0

    def begin(self, sizes: Mapping[str, int]) -> "ImportingHost":
        self.begun += 1
        if self.refuses is not None:
            raise self.refuses
        self.sizes, self.state = dict(sizes), "ready"
        return self

    def host(self, key: str) -> str:
        assert key in self.sizes
        return self.name

    def upload(self, key: str) -> "HostUpload":
        assert self.state == "ready"
        return HostUpload(self, key)

    def progress(self, share: float) -> None:
        self.shares.append(share)

    def complete(self) -> Mapping[str, VmdkAddress]:
        assert self.state == "ready"
        assert self.taken.keys() == self.sizes.keys(), "completed before all disks were there"
        self.state = "complete"
        addresses = {key: VmdkAddress("ds", f"new/{key}.vmdk", machine="vm-2") for key in self.sizes}
        self.streams = {addresses[key].path: raw for key, raw in self.taken.items()}
        return addresses

    def abort(self) -> None:
        if self.state == "ready":
            self.state = "gone"
            self.taken.clear()

    def disk(self, key: str) -> bytes:
        """What the finished disk holds."""
        assert self.state == "complete"
        return read(self.taken[key])


class HostUpload:
    """One disk on its way up."""

    def __init__(self, host: ImportingHost, key: str) -> None:
        self._host = host
        self._key = key
        self._raw = io.BytesIO()

    def write(self, data: bytes, /) -> None:
        if self._host.state != "ready":
            raise ConnectionResetError("the lease is over")
        self._raw.write(data)
        if self._host.fails_at is not None and self._raw.tell() > self._host.fails_at:
            raise BrokenPipeError("the host hung up")

    def finish(self) -> None:
        self._host.taken[self._key] = self._raw.getvalue()

    def close(self) -> None:
        """Nothing is held."""
