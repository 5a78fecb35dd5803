"""A whole backup over the SAN is killed at every step: calls to vCenter, to the array, writes into the repository.

After recovery (a sweep, as every start makes it): no snapshot of ours, relocation enabled, no half restore point, and the next
backup is whole.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.backup import BackupPorts, BackupRequest, back_up
from proxy.hypervisor.vsphere import VsphereSite
from proxy.interlock import Interlock
from proxy.model import FrozenDisk, RestorePoint
from proxy.ports import BlockSource
from proxy.repository import KeyFile, MemoryStore, Repository, create
from proxy.repository import open as open_repository
from proxy.transport.vmfs_san import VmfsTransport
from proxy.units import KiB, MiB
from tests.integration.hypervisor.vsphere.site_bench import Killed, Life, MortalVcenter, SiteBench
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go"), pytest.mark.timeout(1200)]

SECRET = KeyFile(bytes(range(32)))
CHUNK = 64 * KiB
SIZE = 6 * MiB

_numbers = itertools.count(1)


class MortalStore(MemoryStore):
    """What was put outlives the worker; a dead one puts nothing."""

    life = Life()

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        self.life.step()
        super().put(name, data, new=new)
        self.life.stepped()

    def delete(self, name: str) -> None:
        self.life.step()
        super().delete(name)


class MortalTransport:
    """The SAN, for as long as the worker lives."""

    mode = "san"

    def __init__(self, inner: VmfsTransport, life: Life) -> None:
        self._inner = inner
        self._life = life

    def probe(self, disk: FrozenDisk) -> None:
        self._life.step()
        self._inner.probe(disk)

    def open(self, disk: FrozenDisk) -> BlockSource:
        self._life.step()
        source = self._inner.open(disk)
        read = source.read_into

        def read_into(offset: int, buffer: memoryview) -> None:
            self._life.step()
            read(offset, buffer)

        source.read_into = read_into  # type: ignore[method-assign] # its life is counted, nothing else is changed
        return source


class Proxy:
    """One worker after the other on the same vCenter, array, repository and state directory."""

    def __init__(self, lab: VcsimLab, directory: Path) -> None:
        self.bench = SiteBench(lab, directory / "state")
        self.store = MortalStore()
        self.directory = directory
        create(self.store, chunk_size=CHUNK, pack_size=MiB, cache=directory / "cache", secret=SECRET).close()

    def back_up(self, life: Life) -> RestorePoint:
        """By a new worker with this life."""
        self.store.life = life
        site = self.bench.new_site(vcenter=MortalVcenter(self.bench.settings(), life=life))
        with self.repository() as repository:
            transport = MortalTransport(VmfsTransport(self.bench.lab.fabric(), site), life)
            ports = BackupPorts(site, [transport], repository, Interlock(self.directory / "locks"))
            request = BackupRequest(f"killed-{next(_numbers):06}", self.bench.lab.instance_uuid("db"))
            point = back_up(ports, request).point
        site.close()
        return point

    def recover(self) -> Sequence[RestorePoint]:
        """What every start does; then all restore points, none of them damaged."""
        self.store.life = Life()
        site: VsphereSite = self.bench.new_site()
        site.sweep(list)
        site.close()
        with self.repository() as repository:
            assert list(repository.damaged_points()) == []
            return repository.points()

    def repository(self) -> Repository:
        return open_repository(self.store, secret=SECRET, cache=self.directory / "cache")

    def restored(self, point: RestorePoint, key: str) -> bytes:
        with self.repository() as repository, repository.open_image(point, key) as image:
            data = bytearray(image.size)
            image.read_into(0, memoryview(data))
            return bytes(data)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    disks = (LabDisk(size=SIZE), LabDisk("scsi0:1", SIZE, "lazy"))
    with VcsimLab(tmp_path / "lab", (LabMachine("db", disks, guest="windows2019srv_64Guest"),)) as lab:
        made = Proxy(lab, tmp_path)
        yield made
        made.bench.site.close()


@pytest.mark.parametrize("answered", [False, True], ids=["before-the-step", "after-it"])
def test_killed_at_every_step_a_backup_leaves_nothing_behind(proxy: Proxy, answered: bool) -> None:
    lab, keys = proxy.bench.lab, ("scsi0:0", "scsi0:1")
    known: Any = [proxy.back_up(Life())]
    for number in itertools.count(1):
        for key in keys:
            lab.guest_writes("db", key, (number % 80) * CHUNK, bytes([number % 251]) * 70_000)
        truth = {key: lab.truth("db", key, 0, SIZE) for key in keys}
        life = Life(dies_at=number, answered=answered)
        with suppress(Killed):
            proxy.back_up(life)
        points = proxy.recover()
        assert proxy.bench.clean(), f"step {number}"
        added = points[len(known) :]
        assert len(added) <= 1
        for point in added:  # the seal was through: then it is whole
            assert {key: proxy.restored(point, key) for key in keys} == truth, f"step {number}"
        known = points
        if not life.dead:
            break
    assert number > 60, "that was not every step"
    assert len(known) > 1
