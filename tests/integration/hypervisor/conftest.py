"""One lab for all tests of the KVM driver, and what they see it through: array-side truth, chains, the guest.

After every test nothing of ours may be left: no overlay in a chain or a directory, no frozen guest.
"""

import hashlib
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from appliance.lab.lab import Lab
from proxy import command
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.model import Snapshot, SnapshotRequest
from proxy.state_directory import StateDirectory

_runs = itertools.count(1)


class KvmBench:
    """A lab, a site over its hosts, and short words for what every test does."""

    def __init__(self, lab: Lab, state: Path, **settings: object) -> None:
        self.lab = lab
        self.overlays = lab.shared / "overlays"
        self.state = state
        self.site = self.new_site(**settings)

    def new_site(self, state: Path | None = None, **settings: object) -> KvmSite:
        hosts = [KvmHost(h.name, h.uri, str(self.overlays), **settings) for h in self.lab.hosts]
        return KvmSite(hosts, state=StateDirectory(state or self.state))

    def id(self, name: str) -> str:
        return self.lab.host_of(name).virsh("domuuid", name).text.strip()

    def virsh(self, name: str, *words: str, check: bool = True) -> str:
        return self.lab.host_of(name).virsh(*words, check=check).text

    def request(self, name: str, *disks: str, **asked: object) -> SnapshotRequest:
        run = asked.pop("run", None) or f"20261122-{next(_runs):04}-{time.time_ns() % 10**9:09}"
        return SnapshotRequest(str(run), self.id(name), disks or ("vda",), **asked)

    def chain(self, name: str, key: str = "vda", *, inactive: bool = False) -> list[str]:
        """What the machine's disk consists of, top first."""
        text = self.virsh(name, "dumpxml", name, *(["--inactive"] if inactive else []))
        disk = next(
            d for d in ElementTree.fromstring(text).findall("devices/disk") if d.find("target").get("dev") == key
        )
        return [s.get("file") or s.get("dev") or s.get("name") for s in disk.iter("source")]

    def lun(self, number: int) -> Path:
        """The array's own file behind a LUN: truth that no iSCSI and no QEMU stands between."""
        return next(lun.path for lun in self.lab.array.luns() if lun.number == number)

    def digest(self, path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def guest_bytes(self, image: Path, to: Path) -> bytes:
        """Virtual disk bytes of a qcow2 image, read without its user's lock."""
        command.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, to], timeout=60)
        return to.read_bytes()

    def dirty(self, image: Path, bitmap: str, directory: Path) -> list[tuple[int, int]]:
        """Start and length of what the bitmap in the image says was written. Fails where QEMU calls it inconsistent."""
        return dirty_extents(["qemu-nbd", "-r", "-f", "qcow2", "-B", bitmap], image, bitmap, directory)

    def checkpoints(self, name: str) -> list[str]:
        return self.virsh(name, "checkpoint-list", name, "--name").split()

    def guest_state(self, name: str) -> str:
        answer = self.virsh(name, "qemu-agent-command", name, '{"execute":"guest-fsfreeze-status"}')
        return str(json.loads(answer)["return"])

    def use(self, *names: str) -> None:
        """Let these machines run and pause the others: emulated guests share two processors."""
        states = {name: state for host in self.lab.hosts if host.answers() for name, state in host.machines().items()}
        for name, state in states.items():
            if name not in names and state == "running":
                self.virsh(name, "suspend", name)
            elif name in names and state == "paused":
                self.virsh(name, "resume", name)
        self.lab.start(*(name for name in names if states.get(name) == "shut off"))

    def written(self, name: str) -> int:
        """Bytes that the guest has written to its first disk since it was started."""
        statistics = self.virsh(name, "domblkstat", name, "vda")
        return next(int(line.split()[-1]) for line in statistics.splitlines() if " wr_bytes " in line)

    def wait(self, what: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.2)

    def writes_go_on(self, name: str, more: int = 96 * 1024) -> None:
        before = self.written(name)
        self.wait(lambda: self.written(name) >= before + more)

    def take(self, name: str, *disks: str, **asked: object) -> Snapshot:
        return self.site.snapshot(self.request(name, *disks, **asked))

    def leftovers(self) -> list[str]:
        names = [f.name for f in self.overlays.iterdir() if f.name.startswith("lanfree-")]
        for host in self.lab.hosts:
            for machine in host.machines() if host.answers() else ():
                for words in ((), ("--inactive",)):
                    text = host.virsh("dumpxml", machine, *words, check=False).text
                    names += [f"{machine}: {line.strip()}" for line in text.splitlines() if "/lanfree-" in line]
        return names


def dirty_extents(server: list[str], image: Path, bitmap: str, directory: Path) -> list[tuple[int, int]]:
    """Ask an NBD server, started for this, for a dirty bitmap. ``nbdinfo`` prints type 1 for dirty."""
    path = directory / "bitmap.sock"
    process = command.spawn([*server, "-t", "--socket", path, "-x", "d", image])
    try:
        deadline = time.monotonic() + 10
        while not _answers(path):
            assert process.poll() is None, f"qemu-nbd refuses bitmap {bitmap}"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return nbd_dirty(f"nbd+unix:///d?socket={path}", f"qemu:dirty-bitmap:{bitmap}")
    finally:
        command.stop(process)
        path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    """Whether somebody listens: the socket has its name a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def nbd_dirty(uri: str, context: str) -> list[tuple[int, int]]:
    found = json.loads(command.run(["nbdinfo", f"--map={context}", "--json", uri], timeout=20).text)
    return [(e["offset"], e["length"]) for e in found if e["type"] & 1]


@pytest.fixture(scope="session")
def small_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 8 MiB, mounted before the hosts get their mount namespaces, so that they have it, too."""
    place = tmp_path_factory.mktemp("small")
    command.run(["mount", "-t", "tmpfs", "-o", "size=8m", "lanfree-tests", place], timeout=10)
    yield place
    command.run(["umount", place], timeout=10)


@pytest.fixture(scope="session")
def kvm_lab(tmp_path_factory: pytest.TempPathFactory, small_directory: Path) -> Iterator[Lab]:
    with Lab.up(tmp_path_factory.mktemp("kvm") / "lab", machines=("raw-lun", "qcow2-lun")) as lab:
        yield lab


# Seconds: the emulator removes the socket of a pull-mode backup itself, a moment after libvirt called the job ended.
SETTLED = 5.0


@pytest.fixture
def bench(kvm_lab: Lab, tmp_path: Path) -> Iterator[KvmBench]:
    """Ends with nothing of ours left."""
    found = KvmBench(kvm_lab, tmp_path / "state")
    yield found
    deadline = time.monotonic() + SETTLED
    while (left := found.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        found.site.sweep(list)  # so that one failing test does not make the others fail
    found.site.close()
    assert left == []
