"""Exports of snapshots against the simulated vCenter and its host: every byte, one lease a machine, nothing left behind."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import ReadFailed, TransportRefused
from proxy.extents import Extent
from proxy.hypervisor.vsphere import collector, inventory, leases, nfc_http, tasks
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.devices import address, virtual_disks
from proxy.hypervisor.vsphere.exports import Exports
from proxy.hypervisor.vsphere.faults import Refused
from proxy.hypervisor.vsphere.settings import VsphereSettings
from proxy.model import Format, FrozenDisk, Layer
from proxy.transfer import copy
from proxy.transport.nfc import HostBudget, NfcTransport
from proxy.units import MiB
from tests.integration.transport.tgt_array import until
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

MACHINES = (
    LabMachine(
        "web",
        (
            LabDisk(),
            LabDisk("scsi0:1", 40 * MiB, "lazy"),
            LabDisk("nvme0:0", 8 * MiB, "thin", "nfs1"),
            LabDisk("sata0:2", 8 * MiB, "empty", "nfs1"),
        ),
    ),
    LabMachine("db", (LabDisk(size=48 * MiB, layout="thick"),), power="poweredOff"),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    stores = (LabDatastore("san1"), LabDatastore("nfs1", "NFS", ()))
    with VcsimLab(tmp_path_factory.mktemp("exports") / "lab", MACHINES, stores) as made:
        yield made


@pytest.fixture
def vcenter(lab: VcsimLab) -> Iterator[Vcenter]:
    made = Vcenter(
        VsphereSettings("lab", lab.host, lab.user, lab.password_file, port=lab.port, thumbprint=lab.thumbprint)
    )
    yield made
    lab.mend()
    made.close()


class Frozen:
    """A machine with a snapshot, and its disks as the driver would give them."""

    def __init__(self, vcenter: Vcenter, lab: VcsimLab, machine: str) -> None:
        self.vcenter = vcenter
        found = inventory.find_machine(vcenter, lab.instance_uuid(machine))
        task = found.CreateSnapshot_Task("ours", "", False, False)
        self.snapshot = tasks.wait(vcenter, task, "snapshot", limit=60)
        around = inventory.surroundings(vcenter, found)
        held = collector.read_one(vcenter, self.snapshot, "config.hardware.device").values["config.hardware.device"]
        self.disks = {}
        for key, device in virtual_disks(held).items():
            place = address(device, device.backing, around)
            assert place is not None
            location = replace(place, snapshot=self.snapshot._moId)
            self.disks[key] = FrozenDisk(key, device.capacityInBytes, (Layer(location, Format.VMDK),))

    def remove(self) -> None:
        tasks.wait(self.vcenter, self.snapshot.RemoveSnapshot_Task(True, True), "remove", limit=60)


@pytest.fixture
def web(vcenter: Vcenter, lab: VcsimLab) -> Iterator[Frozen]:
    made = Frozen(vcenter, lab, "web")
    yield made
    lab.mend()
    made.remove()


class Digest:
    """A sink over which the digest of a whole disk is made at the end."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def held_leases(lab: VcsimLab, vcenter: Vcenter, web: Frozen) -> bool:
    """Whether the machine is held by a lease: a second one would be refused."""
    try:
        lease = leases.Lease(vcenter, web.snapshot.ExportSnapshot(), "look")
    except Refused:
        return True
    lease.abort()
    return False


@pytest.mark.parametrize("key", ["scsi0:0", "scsi0:1", "nvme0:0", "sata0:2"])
def test_every_byte_of_a_frozen_disk_comes_through(lab: VcsimLab, vcenter: Vcenter, web: Frozen, key: str) -> None:
    lab.guest_writes("web", key, MiB, b"written after the snapshot")
    disk = web.disks[key]
    sink = Digest(disk.size)
    with NfcTransport(Exports(vcenter).export).open(disk) as source:
        assert source.identity == f"nfc:{key}"
        copy(source, sink, source.extents(), disk=key)
    assert sink.sha256 == lab.digest("web", key, web.snapshot._moId)
    assert sink.sha256 != lab.digest("web", key)
    assert not held_leases(lab, vcenter, web)


def test_disks_that_are_read_at_the_same_time_share_a_lease(lab: VcsimLab, vcenter: Vcenter, web: Frozen) -> None:
    transport = NfcTransport(Exports(vcenter).export)
    lab.counters(reset=True)
    sinks = {key: Digest(disk.size) for key, disk in web.disks.items()}
    with ExitStack() as opened:
        sources = {key: opened.enter_context(transport.open(disk)) for key, disk in web.disks.items()}
        threads = [
            threading.Thread(
                target=copy,
                args=(sources[key], sinks[key], [Extent(0, len(sinks[key].data))]),
                kwargs={"disk": key},
            )
            for key in sources
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert held_leases(lab, vcenter, web)
    calls = lab.counters()["Calls"]
    assert {key: sink.sha256 for key, sink in sinks.items()} == {
        key: lab.digest("web", key, web.snapshot._moId) for key in sinks
    }
    assert calls["HttpNfcLeaseComplete"] == 1
    assert not held_leases(lab, vcenter, web)


def test_one_after_the_other_each_has_its_lease(lab: VcsimLab, vcenter: Vcenter, web: Frozen) -> None:
    transport = NfcTransport(Exports(vcenter).export)
    for disk in web.disks.values():
        with transport.open(disk) as source:
            source.read_into(0, memoryview(bytearray(512)))
    assert not held_leases(lab, vcenter, web)


def test_a_machine_that_is_off_is_exported_without_a_snapshot(lab: VcsimLab, vcenter: Vcenter) -> None:
    found = inventory.find_machine(vcenter, lab.instance_uuid("db"))
    device = virtual_disks(found.config.hardware.device)["scsi0:0"]
    place = address(device, device.backing, inventory.surroundings(vcenter, found))
    assert place is not None
    with Exports(vcenter).export(place) as exported:
        stream = exported.open()
        assert stream.read(4) == b"KDMV"
        stream.close()


def test_the_lease_is_kept_alive_while_it_is_read(
    lab: VcsimLab, vcenter: Vcenter, web: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LONGEST_BEAT", 0.05)
    lab.counters(reset=True)
    with NfcTransport(Exports(vcenter).export).open(web.disks["scsi0:0"]) as source:
        copy(source, Digest(source.size), source.extents(), disk="scsi0:0")
        until_called(lab, "HttpNfcLeaseProgress", 3)


def until_called(lab: VcsimLab, method: str, times: int) -> None:
    waiting = threading.Event()
    for _ in range(200):
        if lab.counters()["Calls"].get(method, 0) >= times:
            return
        waiting.wait(0.05)
    raise AssertionError(f"{method} was not called {times} times")


def test_a_slow_reader_keeps_its_lease(lab: VcsimLab, vcenter: Vcenter, web: Frozen) -> None:
    lab.fault("lease-timeout", value=1)
    with NfcTransport(Exports(vcenter).export).open(web.disks["scsi0:0"]) as source:
        source.read_into(0, memoryview(bytearray(MiB)))
        end = time.monotonic() + 2.5
        until(lambda: time.monotonic() > end, 10, "some time passed")
        assert held_leases(lab, vcenter, web)
        sink = Digest(source.size)
        copy(source, sink, source.extents(), disk="scsi0:0")
    assert sink.sha256 == lab.digest("web", "scsi0:0", web.snapshot._moId)


def test_a_session_that_ends_in_the_middle_disturbs_nothing(lab: VcsimLab, vcenter: Vcenter, web: Frozen) -> None:
    sink = Digest(web.disks["scsi0:0"].size)
    with NfcTransport(Exports(vcenter).export).open(web.disks["scsi0:0"]) as source:
        lab.expire_sessions()
        copy(source, sink, source.extents(), disk="scsi0:0")
    assert sink.sha256 == lab.digest("web", "scsi0:0", web.snapshot._moId)
    assert not held_leases(lab, vcenter, web)


# --- faults ---


def test_a_host_without_nfc_connections_makes_the_transport_refuse(
    lab: VcsimLab, vcenter: Vcenter, web: Frozen
) -> None:
    lab.fault("lease-refused", times=1)
    transport = NfcTransport(Exports(vcenter).export)
    with pytest.raises(TransportRefused, match="no NFC connection left") as error:
        transport.open(web.disks["scsi0:0"])
    assert error.value.reason == "export-refused"
    transport.open(web.disks["scsi0:0"]).close()


def test_a_busy_host_is_asked_again(
    lab: VcsimLab, vcenter: Vcenter, web: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nfc_http, "BUSY_PAUSES", (0.01, 0.01))
    lab.fault("host-busy", times=2)
    NfcTransport(Exports(vcenter).export).open(web.disks["scsi0:0"]).close()
    lab.fault("host-busy", times=3)
    with pytest.raises(TransportRefused, match="HTTP 503") as error:
        NfcTransport(Exports(vcenter).export).open(web.disks["scsi0:0"])
    assert error.value.reason == "export-refused"
    assert not held_leases(lab, vcenter, web)


def test_a_lost_connection_is_a_failed_read_that_tells_no_ticket(lab: VcsimLab, vcenter: Vcenter, web: Frozen) -> None:
    lab.fault("export-cut", times=1, value=70_000)  # behind header and descriptor
    with NfcTransport(Exports(vcenter).export).open(web.disks["scsi0:0"]) as source, pytest.raises(ReadFailed) as error:
        copy(source, Digest(source.size), source.extents(), disk="scsi0:0")
    assert "lost" in str(error.value)
    assert "nfc-" not in str(error.value)
    assert not held_leases(lab, vcenter, web)


def test_never_more_connections_than_the_budget(lab: VcsimLab, vcenter: Vcenter, web: Frozen) -> None:
    transport = NfcTransport(Exports(vcenter).export, HostBudget(1, patience=0.1))
    with transport.open(web.disks["scsi0:0"]), pytest.raises(TransportRefused, match="were in use"):
        transport.open(web.disks["scsi0:1"])
    assert not held_leases(lab, vcenter, web)


def test_a_disk_that_the_snapshot_does_not_hold_is_refused(lab: VcsimLab, vcenter: Vcenter, web: Frozen) -> None:
    location = web.disks["scsi0:0"].layers[0].location
    gone = FrozenDisk("scsi0:0", 0, (Layer(replace(location, device=4711), Format.VMDK),))  # type: ignore[type-var]
    with pytest.raises(TransportRefused, match="device key 4711"):
        NfcTransport(Exports(vcenter).export).open(gone)
    assert not held_leases(lab, vcenter, web)


@contextmanager
def own_lab(directory: Path, size: int) -> Iterator[tuple[VcsimLab, Vcenter]]:
    """One for what others must not see: a machine "web" with a disk of ``size`` bytes."""
    machine = LabMachine("web", (LabDisk(size=size, datastore="nfs1"),), datastore="nfs1")
    with VcsimLab(directory / "lab", (machine,), (LabDatastore("nfs1", "NFS", ()),)) as lab:
        settings = VsphereSettings(
            "lab", lab.host, lab.user, lab.password_file, port=lab.port, thumbprint=lab.thumbprint
        )
        with closing(Vcenter(settings)) as vcenter:
            yield lab, vcenter


def test_a_lease_that_the_host_ends_is_a_failed_read(tmp_path: Path) -> None:
    size = 64 * MiB
    with own_lab(tmp_path, size) as (lab, vcenter):
        for at in range(0, size, 4 * MiB):
            lab.guest_writes("web", "scsi0:0", at, os.urandom(4 * MiB))
        frozen = Frozen(vcenter, lab, "web")
        with NfcTransport(Exports(vcenter).export).open(frozen.disks["scsi0:0"]) as source:
            lab.lose_leases("web")
            # What is on its way still comes: some MiB of what does not compress.
            with pytest.raises(ReadFailed):
                copy(source, Digest(source.size), source.extents(), disk="scsi0:0")
        assert not held_leases(lab, vcenter, frozen)


def test_a_vcenter_that_restarts_in_the_middle_gives_all_bytes_or_none(tmp_path: Path) -> None:
    with own_lab(tmp_path, 8 * MiB) as (lab, vcenter):
        frozen = Frozen(vcenter, lab, "web")
        sink = Digest(8 * MiB)
        with NfcTransport(Exports(vcenter).export).open(frozen.disks["scsi0:0"]) as source:
            lab.restart_vcenter(0.3)
            try:
                copy(source, sink, source.extents(), disk="scsi0:0")
            except ReadFailed:
                lost = True
            else:
                lost = False
        right = lab.digest("web", "scsi0:0", frozen.snapshot._moId)
        assert lost or sink.sha256 == right
        again = Digest(8 * MiB)
        with NfcTransport(Exports(vcenter).export).open(frozen.disks["scsi0:0"]) as source:
            copy(source, again, source.extents(), disk="scsi0:0")
        assert again.sha256 == right
