"""Disks that are finished together: all of them are written before the first is read back, or nothing of them stays."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.backup import BackupPorts, BackupRequest, back_up
from proxy.errors import WriteFailed
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.interlock import Interlock
from proxy.ports import DiskPlace, NewMachine
from proxy.repository import MemoryStore, create
from proxy.restore import RestorePorts, RestoreRequest, RestoreResult, restore
from proxy.transport.memory import MemoryTransport
from proxy.transport.nfc_target import ImportTargets
from proxy.units import KiB
from tests.unit.transport.nfc_host import ImportingHost

CHUNK = 16 * KiB
KEYS = ("scsi0:0", "scsi0:1", "scsi0:2")
IMAGES = {key: random.Random(key).randbytes(40 * CHUNK) + bytes(30 * CHUNK) + b"\x01" * 512 for key in KEYS}


@dataclass
class Site:
    ports: RestorePorts
    targets: ImportTargets
    host: ImportingHost
    point: str

    def restore(self, *, compare: bool = True) -> RestoreResult:
        places = {key: DiskPlace(datastore="ds", disk=key) for key in KEYS}
        machine = NewMachine(name="web-02", host="h2", disks=places)
        with self.targets:
            return restore(self.ports, RestoreRequest("restore-1", self.point, machine, define=False, compare=compare))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    hypervisor = MemoryHypervisor()
    machine = hypervisor.add("web-01", IMAGES)
    with create(
        MemoryStore(), chunk_size=CHUNK, pack_size=256 * KiB, cache=tmp_path / "cache", secret=None
    ) as repository:
        interlock = Interlock(tmp_path / "locks")
        transport = MemoryTransport(hypervisor.disk_bytes)
        done = back_up(BackupPorts(hypervisor, [transport], repository, interlock), BackupRequest("run-1", machine))
        host = ImportingHost()
        targets = ImportTargets(host.begin, host.export, "web-02")
        yield Site(RestorePorts(hypervisor, repository, targets, interlock), targets, host, done.point.id)


def test_a_machine_of_three_disks_is_imported_and_compared(site: Site) -> None:
    result = site.restore()
    assert [(disk.key, disk.compared, disk.bytes_written) for disk in result.disks] == [
        (key, True, 41 * CHUNK - CHUNK + 512) for key in KEYS
    ]
    assert {key: site.host.disk(key) for key in KEYS} == IMAGES
    assert site.host.opened == len(KEYS)
    assert site.host.running == 0


def test_without_a_comparison_nothing_is_read_back(site: Site) -> None:
    assert [disk.compared for disk in site.restore(compare=False).disks] == [False] * 3
    assert (site.host.state, site.host.opened) == ("complete", 0)


def test_a_disk_that_reads_back_differently_is_found_out(site: Site) -> None:
    complete = site.host.complete

    def mixed_up() -> object:
        addresses = complete()
        site.host.streams[addresses[KEYS[1]].path] = site.host.taken[KEYS[0]]
        return addresses

    site.host.complete = mixed_up  # type: ignore[method-assign, assignment]
    with pytest.raises(WriteFailed, match="does not read back") as error:
        site.restore()
    assert any(KEYS[1] in note for note in error.value.__notes__)


def test_a_failed_disk_takes_the_whole_machine_away(site: Site) -> None:
    site.host.fails_at = 400 * KiB
    with pytest.raises(WriteFailed, match="hung up"):
        site.restore()
    assert (site.host.state, site.host.opened) == ("gone", 0)
