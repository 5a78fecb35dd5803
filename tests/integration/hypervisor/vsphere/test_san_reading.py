"""The driver's frozen disks, read from the array by the SAN transport: the simulated vCenter tells where, no host reads a byte.

::

    VsphereSite.snapshot ──VmdkAddress──► VmfsTransport ──READ(16)──► tgtd      bytes: equal to the lab's truth
               .allocated ──────────────► cross-check
               .export ── NfcTransport ─► qualification, once
"""

import hashlib
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.errors import SnapshotBroken, TransportRefused
from proxy.extents import Kind, total
from proxy.hypervisor.vsphere import VsphereSite
from proxy.hypervisor.vsphere.settings import VsphereSettings
from proxy.model import FrozenDisk, Layer, Snapshot, SnapshotRequest
from proxy.ports import BlockSource
from proxy.state_directory import StateDirectory
from proxy.transport.nfc import NfcTransport
from proxy.transport.vmfs_san import Qualification, VmfsTransport
from proxy.units import MiB
from tests.integration.hypervisor.vsphere.vcsim_client import connected
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

MACHINES = (
    LabMachine("web", (LabDisk(), LabDisk("scsi0:1", 40 * MiB, "lazy")), tracking=True),
    LabMachine("db", (LabDisk(size=48 * MiB, layout="thick"),), tracking=True),
    LabMachine("wide", (LabDisk(size=64 * MiB, datastore="san2"),), datastore="san2"),
    LabMachine("files", (LabDisk(size=8 * MiB, datastore="nfs1"),), datastore="nfs1"),
)
STORES = (LabDatastore("san1"), LabDatastore("san2", extents=(1, 1)), LabDatastore("nfs1", "NFS", ()))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(tmp_path_factory.mktemp("san") / "lab", MACHINES, STORES) as made:
        yield made


@pytest.fixture
def site(lab: VcsimLab, tmp_path: Path) -> Iterator[VsphereSite]:
    settings = VsphereSettings("lab", lab.host, lab.user, lab.password_file, port=lab.port, thumbprint=lab.thumbprint)
    made = VsphereSite(settings, state=StateDirectory(tmp_path), pause=0.1)
    yield made
    lab.mend()
    made.close()


@contextmanager
def frozen(lab: VcsimLab, site: VsphereSite, name: str) -> Iterator[Snapshot]:
    machine = site.machine(lab.instance_uuid(name))
    run = f"run-{uuid.uuid4().hex[:12]}"
    snapshot = site.snapshot(SnapshotRequest(run, machine.id, tuple(disk.key for disk in machine.disks)))
    try:
        yield snapshot
    finally:
        site.release(snapshot, sealed=False)


def digest(source: BlockSource) -> str:
    buffer = bytearray(source.size)
    for at in range(0, source.size, MiB):
        source.read_into(at, memoryview(buffer)[at : at + MiB])
    return hashlib.sha256(buffer).hexdigest()


def moref(disk: FrozenDisk) -> str:
    return disk.layers[0].location.snapshot  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["web", "db", "wide"])
def test_every_frozen_disk_reads_as_it_was_while_the_guest_writes_on_and_no_host_reads_a_byte(
    lab: VcsimLab, site: VsphereSite, name: str
) -> None:
    transport = VmfsTransport(lab.fabric(), site)
    for disk in site.machine(lab.instance_uuid(name)).disks:
        lab.guest_writes(name, disk.key, 3 * MiB + 512, random.Random(disk.key).randbytes(20_000))
    with frozen(lab, site, name) as snapshot:
        for disk in snapshot.disks:
            lab.guest_writes(name, disk.key, MiB, b"after the snapshot" * 1000)
        lab.counters(reset=True)
        for disk in snapshot.disks:
            transport.probe(disk)
            with transport.open(disk) as source:
                assert source.size == disk.size
                assert digest(source) == lab.digest(name, disk.key, moref(disk)) != lab.digest(name, disk.key)
        assert lab.counters()["Read"] == 0


def test_holes_are_not_data_and_data_are_what_vcenter_calls_allocated(lab: VcsimLab, site: VsphereSite) -> None:
    with frozen(lab, site, "web") as snapshot:
        for disk in snapshot.disks:
            with VmfsTransport(lab.fabric(), site).open(disk) as source:
                data = total(source.extents(), Kind.DATA)
                assert 0 < data < source.size
                assert total(site.allocated(disk.layers[0].location)) <= data  # type: ignore[arg-type]


def test_the_first_disk_of_each_datastore_is_compared_with_what_its_host_exports(
    lab: VcsimLab, site: VsphereSite, tmp_path: Path
) -> None:
    qualification = Qualification(tmp_path / "qualification", NfcTransport(site.export).open)
    transport = VmfsTransport(lab.fabric(), site, qualification)
    lab.counters(reset=True)
    exported = []
    for name in ("web", "db", "wide"):
        with frozen(lab, site, name) as snapshot:
            for disk in snapshot.disks:
                with transport.open(disk) as source:
                    assert digest(source) == lab.digest(name, disk.key, moref(disk))
            exported.append(lab.counters(reset=True)["Read"])
    assert exported[0] > 0
    assert exported[1] == 0  # on the same datastore
    assert exported[2] > 0
    for name in ("san1", "san2"):
        verdict = qualification.verdict(lab.uuids[name])
        assert verdict is not None
        assert verdict.passed


def test_a_disk_on_nfs_and_a_machine_that_is_not_frozen_are_left_to_others(lab: VcsimLab, site: VsphereSite) -> None:
    transport = VmfsTransport(lab.fabric(), site)
    with frozen(lab, site, "files") as snapshot, pytest.raises(TransportRefused) as refused:
        transport.open(snapshot.disks[0])
    assert refused.value.reason == "datastore-not-vmfs"


def merge(lab: VcsimLab, site: VsphereSite, snapshot: Snapshot, disk: FrozenDisk, offset: int) -> None:
    """The guest writes, and somebody removes the snapshot: the write goes into the base on the LUN."""
    lab.guest_writes(lab_name(lab, snapshot), disk.key, offset, random.Random(offset).randbytes(MiB))
    site.release(snapshot, sealed=False)


def lab_name(lab: VcsimLab, snapshot: Snapshot) -> str:
    return next(machine.name for machine in lab.machines if lab.instance_uuid(machine.name) == snapshot.machine)


def test_a_snapshot_that_is_removed_under_the_reader_spoils_the_run_where_blocks_are_allocated(
    lab: VcsimLab, site: VsphereSite
) -> None:
    with frozen(lab, site, "wide") as snapshot:
        (disk,) = snapshot.disks
        with pytest.raises(TransportRefused) as refused, VmfsTransport(lab.fabric(), site).open(disk) as source:
            hole = next(extent for extent in source.extents() if extent.kind is Kind.ZERO)
            merge(lab, site, snapshot, disk, hole.start)
    assert refused.value.reason == "map-changed"


def test_a_snapshot_that_is_removed_under_the_reader_of_a_thick_disk_is_noticed_by_its_lock_and_by_the_driver(
    lab: VcsimLab, site: VsphereSite
) -> None:
    """Bytes change in their places: no pointer does."""
    with frozen(lab, site, "db") as snapshot:
        (disk,) = snapshot.disks
        with (
            pytest.raises(TransportRefused, match="file-open-for-writing") as refused,
            VmfsTransport(lab.fabric(), site).open(disk) as source,
        ):
            digest(source)
            merge(lab, site, snapshot, disk, 5 * MiB)
        assert refused.value.reason == "map-changed"
        with pytest.raises(SnapshotBroken):
            site.confirm(snapshot)


def test_a_disk_that_no_snapshot_freezes_is_refused_while_its_machine_runs(lab: VcsimLab, site: VsphereSite) -> None:
    disk = site.machine(lab.instance_uuid("db")).disks[0]
    assert disk.location is not None
    running = FrozenDisk(disk.key, disk.size, (Layer(disk.location, disk.format),))
    VmfsTransport(lab.fabric(), site).probe(running)
    with pytest.raises(TransportRefused) as refused:
        VmfsTransport(lab.fabric()).open(running)
    assert refused.value.reason == "file-open-for-writing"


def test_above_somebody_elses_snapshot_the_frozen_chain_is_read_with_its_delta(
    lab: VcsimLab, site: VsphereSite
) -> None:
    with connected(lab) as client:
        machine = client.vm("web")
        theirs = client.snapshot(machine, name="before the upgrade")
        try:
            for number in range(40):
                lab.guest_writes("web", "scsi0:0", number * MiB + 4096 * number, random.Random(number).randbytes(6000))
            with frozen(lab, site, "web") as snapshot:
                disk = snapshot.disks[0]
                path = disk.layers[0].location.path  # type: ignore[union-attr]
                assert path.endswith("-000001.vmdk")
                with VmfsTransport(lab.fabric(), site).open(disk) as source:
                    assert digest(source) == lab.digest("web", disk.key, moref(disk))
        finally:
            client.remove(theirs)
