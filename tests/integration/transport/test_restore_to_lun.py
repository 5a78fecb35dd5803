"""The restore use case over a real array: a machine's disk to a LUN, and again only what differs from what the LUN holds."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proxy.backup import BackupPorts, BackupRequest, back_up
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.interlock import Interlock
from proxy.model import PowerState, ReasonCode
from proxy.ports import DiskPlace, NewMachine
from proxy.repository import KeyFile, PosixStore, create
from proxy.restore import RestorePorts, RestoreRequest, restore
from proxy.restore_disk import RestoredDisk
from proxy.transport.iscsi import Limits
from proxy.transport.memory import MemoryTransport
from proxy.transport.raw import SharedFiles
from proxy.transport.san import Access, SanFabric
from proxy.transport.target import SiteTargets
from proxy.units import KiB, MiB
from tests.integration.transport.tgt_array import BACKUP, HOSTS, RESTORE, Array

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root")]

SIZE = 32 * MiB
CHUNK = 256 * KiB
DATA = 12 * MiB
CONTENT = os.urandom(DATA) + bytes(SIZE - DATA - MiB) + os.urandom(MiB)


@dataclass
class Site:
    ports: RestorePorts
    request: RestoreRequest
    image: Path

    def restore(self, **options: object) -> RestoredDisk:
        (disk,) = restore(self.ports, replace(self.request, **options)).disks  # type: ignore[arg-type]
        return disk

    def allocated(self) -> int:
        with self.image.open("rb") as file:
            os.fsync(file.fileno())
        return self.image.stat().st_blocks * 512


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty LUN."""
    path = tmp_path / "empty.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def site(served: Array, image: Path, tmp_path: Path) -> Iterator[Site]:
    backup = served.san_target(BACKUP, tmp_path / "secret")
    again = served.san_target(RESTORE, tmp_path / "unused", Access.RESTORE)
    targets = SiteTargets(SanFabric([backup, again], Limits(timeout=10, login_timeout=5)), SharedFiles([tmp_path]))
    hypervisor = MemoryHypervisor()
    machine = hypervisor.add("db1", {"vda": CONTENT})
    hypervisor.set_state(machine, PowerState.OFF)
    (tmp_path / "store").mkdir()
    store = PosixStore(tmp_path / "store")
    with create(store, secret=KeyFile(bytes(range(32))), cache=tmp_path / "cache") as repository:
        interlock = Interlock(tmp_path / "locks")
        transport = MemoryTransport(hypervisor.disk_bytes)
        done = back_up(BackupPorts(hypervisor, [transport], repository, interlock), BackupRequest("run-1", machine))
        new = NewMachine(name="db1", host="h1", disks={"vda": DiskPlace(target=HOSTS, lun=1)})
        yield Site(
            RestorePorts(hypervisor, repository, targets, interlock),
            RestoreRequest("restore-1", done.point.id, new, define=False),
            image,
        )


def test_a_lun_gets_the_image_and_its_zeroes_take_no_space(site: Site) -> None:
    disk = site.restore()
    assert site.image.read_bytes() == CONTENT
    assert disk.compared
    assert (disk.bytes_written, disk.bytes_zeroed) == (DATA + MiB, SIZE - DATA - MiB)
    assert site.allocated() <= DATA + MiB + 64 * KiB


def test_a_differential_restore_over_the_san_brings_only_what_differs(site: Site) -> None:
    site.restore()
    with site.image.open("r+b") as file:
        for at in (0, 5 * MiB + 77, SIZE - 1):
            file.seek(at)
            file.write(b"changed"[: SIZE - at])
        file.seek(20 * MiB)
        file.write(b"where the image has zeroes")
    disk = site.restore(differential=True, overwrite=True)
    assert site.image.read_bytes() == CONTENT
    assert disk.bytes_written == 3 * CHUNK
    assert disk.bytes_zeroed == CHUNK
    assert [reason.code for reason in disk.reasons] == [ReasonCode.DIFFERENCES_FROM_TARGET]
    assert DATA + MiB <= disk.bytes_read < DATA + 4 * MiB, "what the array says is unallocated is not read"
    assert site.allocated() <= DATA + MiB + 64 * KiB


def test_a_differential_restore_to_an_empty_lun_is_a_whole_one(site: Site) -> None:
    disk = site.restore(differential=True, overwrite=True)
    assert site.image.read_bytes() == CONTENT
    assert (disk.bytes_written, disk.bytes_zeroed) == (DATA + MiB, 0)
    assert site.allocated() <= DATA + MiB + 64 * KiB
