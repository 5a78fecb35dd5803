"""Every way to make a ``BlockSource``, a ``BlockTarget`` and a ``Transport``; what needs real tools is marked so.

The image helpers and servers are those of the unit and integration tests.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from proxy.command import run
from proxy.model import DeviceAddress, FileAddress, Format, FrozenDisk, Layer, Location, LunAddress, NbdAddress
from proxy.ports import BlockSource, BlockTarget, DiskPlace, RestoreTargets, Transport
from proxy.transport.lan import LanTransport
from proxy.transport.layers import open_layers
from proxy.transport.memory import MemorySource, MemoryTarget, MemoryTransport
from proxy.transport.memory_targets import MemoryTargets
from proxy.transport.nbd import NbdSource, NbdTarget
from proxy.transport.nfc import NfcTransport
from proxy.transport.raw import DeviceSource, FileSource, RawTransport, SharedFiles
from proxy.transport.san import Access, SanFabric, SanTransport
from proxy.transport.target import SiteTargets
from proxy.transport.vmfs_san import VmfsTransport
from tests.integration.transport.nbd_servers import nbdkit, qemu_nbd, served
from tests.integration.transport.tgt_array import BACKUP, HOSTS, RESTORE, Array
from tests.unit.transport.nfc_host import Host, frozen, written
from tests.unit.transport.qcow2_builder import CLUSTER, Image
from tests.unit.transport.vmfs_site import FileLuns, site

MakeSource = Callable[[Path, bytes], AbstractContextManager[BlockSource]]

# --- sources over given bytes (at most 2 MiB, whole sectors) ---


@contextmanager
def memory(_: Path, data: bytes) -> Iterator[BlockSource]:
    yield MemorySource(data)


@contextmanager
def memory_without_extents(_: Path, data: bytes) -> Iterator[BlockSource]:
    yield MemorySource(data, can_report_extents=False)


@contextmanager
def file(place: Path, data: bytes) -> Iterator[BlockSource]:
    with FileSource(os.open(sparse(place / "disk", data), os.O_RDONLY), "disk") as source:
        yield source


@contextmanager
def device(place: Path, data: bytes) -> Iterator[BlockSource]:
    """A file in place of a device: opened and read in the same way."""
    descriptor = os.open(sparse(place / "disk", data), os.O_RDONLY | os.O_DIRECT)
    with DeviceSource(descriptor, "naa.1") as source:
        yield source


@contextmanager
def raw_layer(_: Path, data: bytes) -> Iterator[BlockSource]:
    disk = FrozenDisk("vda", len(data), (Layer(FileAddress("disk"), Format.RAW),))
    with open_layers(disk, lambda _layer: MemorySource(data + b"behind the disk"), "san") as source:
        yield source


@contextmanager
def qcow2(_: Path, data: bytes) -> Iterator[BlockSource]:
    with chain([as_qcow2(data, range(1 << 16))], len(data)) as source:
        yield source


@contextmanager
def qcow2_chain(_: Path, data: bytes) -> Iterator[BlockSource]:
    """Every third cluster in the top layer, every other in the middle, the raw base right where they leave it."""
    base = bytearray(b"\xdd" * len(data))
    for number in range(-(-len(data) // CLUSTER)):
        if number % 3 and number % 2:
            base[number * CLUSTER : (number + 1) * CLUSTER] = data[number * CLUSTER : (number + 1) * CLUSTER]
    top, middle = as_qcow2(data, range(0, 1 << 16, 3)), as_qcow2(data, range(0, 1 << 16, 2))
    with chain([top, middle, bytes(base[: len(data)])], len(data)) as source:
        yield source


@contextmanager
def nbd_of_qemu(place: Path, data: bytes) -> Iterator[BlockSource]:
    words = qemu_nbd(sparse(place / "disk", data), "-r")
    with served(words) as server, NbdSource(NbdAddress(server.uri())) as source:
        yield source


@contextmanager
def nbd_without_extents(place: Path, data: bytes) -> Iterator[BlockSource]:
    words = nbdkit("-r", "--no-sr", "file", str(sparse(place / "disk", data)))
    with served(words) as server, NbdSource(NbdAddress(server.uri())) as source:
        yield source


@contextmanager
def lun(place: Path, data: bytes) -> Iterator[BlockSource]:
    with array(place, data) as (fabric, _):
        disk = FrozenDisk("vda", len(data), (Layer(LunAddress(HOSTS, 1), Format.RAW),))
        with SanTransport(fabric).open(disk) as source:
            yield source


@contextmanager
def vmfs(place: Path, data: bytes) -> Iterator[BlockSource]:
    """A flat disk of a datastore, and two deltas that leave it as it is: scattered grains that hold what the base holds."""
    with vmfs_site(place, data) as way, way.transport.open(way.disk) as source:
        yield source


@contextmanager
def vmfs_lun(place: Path, data: bytes) -> Iterator[BlockSource]:
    with vmfs_array(place, data) as way, way.transport.open(way.disk) as source:
        yield source


@contextmanager
def nfc_export(_: Path, data: bytes) -> Iterator[BlockSource]:
    host = Host({"vm/scsi0-0.vmdk": written(data)})
    with NfcTransport(host.export).open(frozen(len(data))) as source:
        yield source


SOURCES = [
    pytest.param(memory, id="memory"),
    pytest.param(memory_without_extents, id="memory-without-extents"),
    pytest.param(file, id="file"),
    pytest.param(device, id="device"),
    pytest.param(raw_layer, id="raw-layer"),
    pytest.param(qcow2, id="qcow2"),
    pytest.param(qcow2_chain, id="qcow2-chain"),
    pytest.param(nfc_export, id="nfc"),
    pytest.param(nbd_of_qemu, id="nbd-qemu", marks=pytest.mark.tools),
    pytest.param(nbd_without_extents, id="nbd-without-extents", marks=pytest.mark.tools),
    pytest.param(lun, id="lun", marks=pytest.mark.tools),
    pytest.param(vmfs, id="vmfs", marks=pytest.mark.slow),
    pytest.param(vmfs_lun, id="vmfs-lun", marks=pytest.mark.tools),
]

# --- targets over a device full of GARBAGE ---

GARBAGE = b"\xa5"


@dataclass
class Opened:
    """``content`` reads what the device holds, past the adapter."""

    target: BlockTarget
    content: Callable[[], bytes]


MakeTarget = Callable[[Path, int], AbstractContextManager[Opened]]


@contextmanager
def memory_target(_: Path, size: int) -> Iterator[Opened]:
    target = MemoryTarget(size, fill=GARBAGE)
    yield Opened(target, lambda: target.flushed)


@contextmanager
def file_target(place: Path, size: int) -> Iterator[Opened]:
    path = place / "disk"
    path.write_bytes(GARBAGE * size)
    targets = SiteTargets(SanFabric([]), SharedFiles([place]))
    with targets.open(DiskPlace(path=str(path)), size, overwrite=True) as target:
        yield Opened(target, path.read_bytes)


@contextmanager
def nbd_target(place: Path, size: int) -> Iterator[Opened]:
    path = place / "disk"
    path.write_bytes(GARBAGE * size)
    with served(qemu_nbd(path)) as server, NbdTarget(NbdAddress(server.uri())) as target:
        yield Opened(target, path.read_bytes)


@contextmanager
def nbd_qcow2_target(place: Path, size: int) -> Iterator[Opened]:
    path = place / "disk.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], timeout=60)
    run(["qemu-io", "-c", f"write -P {GARBAGE[0]} 0 {size}", path], timeout=60)

    def content() -> bytes:
        run(["qemu-img", "convert", "-U", "-O", "raw", path, place / "raw"], timeout=60)
        return (place / "raw").read_bytes()

    words = qemu_nbd(path, form="qcow2")
    with served(words) as server, NbdTarget(NbdAddress(server.uri())) as target:
        yield Opened(target, content)


@contextmanager
def lun_target(place: Path, size: int) -> Iterator[Opened]:
    with array(place, GARBAGE * size) as (fabric, backing):
        targets = SiteTargets(fabric, SharedFiles([]))
        with targets.open(DiskPlace(target=HOSTS, lun=1), size, overwrite=True) as target:
            yield Opened(target, backing.read_bytes)


TARGETS = [
    pytest.param(memory_target, id="memory"),
    pytest.param(file_target, id="file"),
    pytest.param(nbd_target, id="nbd", marks=pytest.mark.tools),
    pytest.param(nbd_qcow2_target, id="nbd-qcow2", marks=pytest.mark.tools),
    pytest.param(lun_target, id="lun", marks=pytest.mark.tools),
]

# --- transports that serve one disk ---


@dataclass
class Way:
    """``disk`` can be served and holds the given bytes; ``foreign`` is one that this transport cannot serve."""

    transport: Transport
    disk: FrozenDisk
    foreign: FrozenDisk


MakeTransport = Callable[[Path, bytes], AbstractContextManager[Way]]


@contextmanager
def memory_transport(_: Path, data: bytes) -> Iterator[Way]:
    transport = MemoryTransport({"disk": data}.__getitem__)
    transport.refused["foreign"] = "not-in-memory"
    foreign = FrozenDisk("foreign", len(data), (Layer(DeviceAddress("/dev/sda"), Format.RAW),))
    yield Way(transport, one_layer(FileAddress("disk"), data), foreign)


@contextmanager
def raw_transport(place: Path, data: bytes) -> Iterator[Way]:
    path = sparse(place / "disk", data)
    foreign = one_layer(NbdAddress("nbd://host/vda"), data)
    yield Way(RawTransport(SharedFiles([place])), one_layer(FileAddress(str(path)), data), foreign)


@contextmanager
def raw_transport_of_qcow2(place: Path, data: bytes) -> Iterator[Way]:
    path = place / "disk.qcow2"
    path.write_bytes(as_qcow2(data, range(1 << 16)).build())
    foreign = one_layer(FileAddress("/etc/passwd"), data)
    good = FrozenDisk("vda", len(data), (Layer(FileAddress(str(path)), Format.QCOW2),))
    yield Way(RawTransport(SharedFiles([place])), good, foreign)


@contextmanager
def lan_transport(place: Path, data: bytes) -> Iterator[Way]:
    with served(qemu_nbd(sparse(place / "disk", data), "-r", "-x", "vda")) as server:
        yield Way(LanTransport(), one_layer(NbdAddress(server.uri("vda")), data), one_layer(LunAddress(HOSTS, 1), data))


@contextmanager
def san_transport(place: Path, data: bytes) -> Iterator[Way]:
    with array(place, data) as (fabric, _):
        yield Way(
            SanTransport(fabric), one_layer(LunAddress(HOSTS, 1), data), one_layer(LunAddress("iqn.other", 1), data)
        )


@contextmanager
def vmfs_site(place: Path, data: bytes) -> Iterator[Way]:
    """A datastore on a LUN that is a file."""
    grains = {number: data[number * 4096 : (number + 1) * 4096] for number in range(0, len(data) // 4096, 3)}
    others = {number: data[number * 4096 : (number + 1) * 4096] for number in range(0, len(data) // 4096, 7)}
    base = bytearray(data)
    for number in grains:
        base[number * 4096 : (number + 1) * 4096] = b"\xdd" * 4096
    made = site(bytes(base), [("se", grains), ("se", others)])
    for name, memory_lun in zip(made.names, made.volume.luns, strict=True):
        memory_lun.save(place / name)
    foreign = FrozenDisk("scsi0:0", len(data), (Layer(made.address(kind="NFS"), Format.VMDK),))
    yield Way(VmfsTransport(SanFabric([]), luns=FileLuns(place)), made.disk(), foreign)


@contextmanager
def vmfs_array(place: Path, data: bytes) -> Iterator[Way]:
    """The same on a LUN of tgtd."""
    name = "t10.lanfree-contract"
    made = site(data, names=[name])
    with array(place, b"", made.volume.luns[0].save(place / "datastore")) as (fabric, _):
        foreign = FrozenDisk("scsi0:0", len(data), (Layer(made.address(devices=("naa.6",)), Format.VMDK),))
        yield Way(VmfsTransport(fabric), made.disk(), foreign)


@contextmanager
def nfc_transport(_: Path, data: bytes) -> Iterator[Way]:
    disk = frozen(len(data))
    foreign = replace(disk, layers=(Layer(LunAddress(HOSTS, 1), Format.RAW),))
    yield Way(NfcTransport(Host({"vm/scsi0-0.vmdk": written(data)}).export), disk, foreign)


TRANSPORTS = [
    pytest.param(memory_transport, id="memory"),
    pytest.param(raw_transport, id="raw"),
    pytest.param(raw_transport_of_qcow2, id="raw-qcow2"),
    pytest.param(nfc_transport, id="nfc"),
    pytest.param(lan_transport, id="lan", marks=pytest.mark.tools),
    pytest.param(san_transport, id="san", marks=pytest.mark.tools),
    pytest.param(vmfs_site, id="vmfs"),
    pytest.param(vmfs_array, id="vmfs-lun", marks=pytest.mark.tools),
]

# --- places to restore to ---


NAMELESS = DeviceAddress("/dev/mapper/mpatha")
"""A host's block device of which nobody knows what it is."""


@dataclass
class Places:
    """A device of given bytes where ``place`` is, which ``disk`` of a machine lies on.

    ``elsewhere``: a disk that does not. ``foreign``: a place that restores may not write to. ``told``: whether it is
    certain that ``NAMELESS`` is not the place.
    """

    targets: RestoreTargets
    place: DiskPlace
    content: Callable[[], bytes]
    disk: Location
    elsewhere: Location
    foreign: DiskPlace
    told: bool


MakePlaces = Callable[[Path, bytes], AbstractContextManager[Places]]


@contextmanager
def memory_lun(_: Path, data: bytes) -> Iterator[Places]:
    targets = MemoryTargets({f"{HOSTS}/1": data})
    device = targets.devices[f"{HOSTS}/1"]
    place, foreign = DiskPlace(target=HOSTS, lun=1), DiskPlace(target=HOSTS, lun=7)
    disk, elsewhere = LunAddress(HOSTS, 1), LunAddress(HOSTS, 2)
    yield Places(targets, place, lambda: bytes(device.data), disk, elsewhere, foreign, told=False)


@contextmanager
def memory_file(_: Path, data: bytes) -> Iterator[Places]:
    targets = MemoryTargets({"/images/a": data})
    device = targets.devices["/images/a"]
    place, foreign = DiskPlace(path="/images/a"), DiskPlace(path="/etc/a")
    disk, elsewhere = FileAddress("/images/a"), FileAddress("/images/b")
    yield Places(targets, place, lambda: bytes(device.data), disk, elsewhere, foreign, told=True)


@contextmanager
def shared_file(place: Path, data: bytes) -> Iterator[Places]:
    shared = place / "shared"
    shared.mkdir()
    path = sparse(shared / "a", data)
    targets = SiteTargets(SanFabric([]), SharedFiles([shared]))
    disk, elsewhere = FileAddress(f"{shared}/../shared/a"), FileAddress(f"{shared}/b")
    foreign = DiskPlace(path=str(place / "a"))
    yield Places(targets, DiskPlace(path=str(path)), path.read_bytes, disk, elsewhere, foreign, told=True)


@contextmanager
def restore_lun(place: Path, data: bytes) -> Iterator[Places]:
    """The place by the restore target's own name, the disk by that of the hosts' target."""
    with array(place, data) as (fabric, backing):
        targets = SiteTargets(fabric, SharedFiles([]))
        named, foreign = DiskPlace(target=RESTORE, lun=1), DiskPlace(target=BACKUP, lun=1)
        disk, elsewhere = LunAddress(HOSTS, 1), LunAddress(HOSTS, 2)
        yield Places(targets, named, backing.read_bytes, disk, elsewhere, foreign, told=False)


PLACES = [
    pytest.param(memory_lun, id="memory-lun"),
    pytest.param(memory_file, id="memory-file"),
    pytest.param(shared_file, id="file"),
    pytest.param(restore_lun, id="lun", marks=pytest.mark.tools),
]

# --- what they are made of ---


def one_layer(location: FileAddress | NbdAddress | LunAddress | DeviceAddress, data: bytes) -> FrozenDisk:
    return FrozenDisk("vda", len(data), (Layer(location, Format.RAW),))


def sparse(path: Path, data: bytes) -> Path:
    """A file with holes where the bytes are zero."""
    with path.open("wb") as output:
        output.truncate(len(data))
        for at in range(0, len(data), 4096):
            if any(data[at : at + 4096]):
                output.seek(at)
                output.write(data[at : at + 4096])
    return path


@cache
def as_qcow2(data: bytes, held: range) -> Image:
    """Data, zero and compressed clusters, as the bytes and the number of the cluster suggest; only those in ``held``."""
    numbers = [n for n in range(-(-len(data) // CLUSTER)) if n in held]
    contents = {n: data[n * CLUSTER : (n + 1) * CLUSTER].ljust(CLUSTER, b"\0") for n in numbers}
    return Image(
        size=len(data),
        clusters={n: c for n, c in contents.items() if any(c) and n % 5},
        packed={n: c for n, c in contents.items() if any(c) and not n % 5},
        zero=[n for n, c in contents.items() if not any(c)],
    )


def chain(contents: Sequence[Image | bytes], size: int) -> BlockSource:
    layers = [
        Layer(FileAddress(str(number)), Format.QCOW2 if isinstance(content, Image) else Format.RAW)
        for number, content in enumerate(contents)
    ]

    def container(layer: Layer) -> BlockSource:
        assert isinstance(layer.location, FileAddress)
        content = contents[int(layer.location.path)]
        return MemorySource(bytes(content.build()) if isinstance(content, Image) else content)

    return open_layers(FrozenDisk("vda", size, tuple(layers)), container, "raw")


@contextmanager
def array(place: Path, data: bytes, image: Path | None = None) -> Iterator[tuple[SanFabric, Path]]:
    """A tgtd with one LUN over the bytes, or over a file, seen through a target for backups and one for restores."""
    backing = image or sparse(place / "lun", data)
    with ExitStack() as stack:
        made = Array()
        stack.callback(made.stop)
        made.start()
        for tid, iqn in ((1, HOSTS), (2, BACKUP), (3, RESTORE)):
            made.target(tid, iqn, chap=iqn == BACKUP)
            made.lun(tid, 1, backing, "lanfree-contract", readonly=iqn == BACKUP)
        yield (
            SanFabric(
                [
                    made.san_target(BACKUP, place / "secret"),
                    made.san_target(RESTORE, place / "secret", Access.RESTORE),
                ]
            ),
            backing,
        )
