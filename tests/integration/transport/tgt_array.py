"""A real array of our own: one tgtd with its own control port and a free TCP port, nothing shared with other tests."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from proxy import command
from proxy.transport.iscsi import Login
from proxy.transport.san import Access, SanTarget
from proxy.units import MiB

BACKUP, HOSTS, RESTORE = (
    "iqn.2026-11.test.array:backup",
    "iqn.2026-11.test.array:hosts",
    "iqn.2026-11.test.array:restore",
)
USER, SECRET = "proxy", "correct-horse-battery"
CONTROL = Path("/var/run/tgtd")
INITIATOR = "iqn.2026-11.org.lanfree:test"


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def free_port() -> int:
    """A TCP port that nobody uses on 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_control() -> int:
    """A tgt control port whose socket does not exist; other runs may have theirs at the same time."""
    CONTROL.mkdir(exist_ok=True)
    taken = {entry.name.partition(".")[2].partition(".")[0] for entry in CONTROL.iterdir()}
    return next(n for n in iter(lambda: random.randrange(2000, 32000), None) if str(n) not in taken)


@dataclass
class Array:
    """tgtd on loopback. ``portals`` are two addresses of the same targets."""

    control: int = field(default_factory=free_control)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def portals(self) -> tuple[str, str]:
        return f"127.0.0.1:{self.port}", f"127.0.0.2:{self.port}"

    def start(self) -> None:
        portals = ",".join(f"portal={p}" for p in self.portals)
        self.process = command.spawn(["tgtd", "-f", "-C", str(self.control), "--iscsi", portals])
        until(lambda: self.admin("--mode", "sys", "--op", "show", check=False) == 0, 10, "tgtd answers")
        assert self.process.poll() is None

    def admin(self, *words: str, check: bool = True) -> int:
        return command.run(["tgtadm", "-C", str(self.control), "--lld", "iscsi", *words], timeout=10, check=check).code

    def target(self, tid: int, iqn: str, *, chap: bool = False) -> None:
        self.admin("--mode", "target", "--op", "new", "--tid", str(tid), "-T", iqn)
        self.admin("--mode", "target", "--op", "bind", "--tid", str(tid), "-I", "ALL")
        if chap:
            self.admin("--mode", "account", "--op", "new", "--user", USER, "--password", SECRET)
            self.admin("--mode", "account", "--op", "bind", "--tid", str(tid), "--user", USER)

    def lun(
        self, tid: int, lun: int, file: Path, serial: str | None, *, readonly: bool = False, thin: bool = True
    ) -> None:
        unit = ("--mode", "logicalunit", "--tid", str(tid), "--lun", str(lun))
        self.admin(*unit, "--op", "new", "-b", str(file), "--bstype", "rdwr")
        parameters = [f"thin_provisioning={int(thin)}", f"readonly={int(readonly)}"]
        if serial is not None:
            parameters += [f"scsi_id={serial}", f"scsi_sn={serial}"]
        self.admin(*unit, "--op", "update", "--params", ",".join(parameters))

    def unmap_lun(self, tid: int, lun: int) -> None:
        self.admin("--mode", "logicalunit", "--op", "delete", "--tid", str(tid), "--lun", str(lun))

    def counted(self, tid: int, lun: int) -> tuple[int, int, int]:
        """What tgtd itself counted for a LUN: bytes read, bytes written, writing commands."""
        words = ("--op", "stat", "--mode", "logicalunit", "--tid", str(tid), "--lun", str(lun))
        told = command.run(["tgtadm", "-C", str(self.control), "--lld", "iscsi", *words], timeout=10).text
        rows = [[int(n) for n in line.split()] for line in told.splitlines()[1:] if line.strip()]
        return sum(r[5] for r in rows), sum(r[9] for r in rows), sum(r[10] for r in rows)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(5)

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        """tgtd does not end on SIGTERM while it has targets, and nobody here needs a clean end."""
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self.kill()
        for left in CONTROL.glob(f"socket.{self.control}*"):
            left.unlink()

    def login(self, iqn: str) -> Login:
        """Credentials that work, for any of the targets."""
        return Login(iqn, INITIATOR, USER, SECRET) if iqn == BACKUP else Login(iqn, INITIATOR)

    def san_target(self, iqn: str, secret_file: Path, access: Access = Access.BACKUP) -> SanTarget:
        """The target as a site's configuration would name it; it presents the hosts' LUNs."""
        secret_file.write_text(SECRET + "\n")
        user = USER if iqn == BACKUP else None
        return SanTarget(iqn, self.portals, INITIATOR, user, secret_file, presents=(HOSTS,), access=access)


def disk_image(path: Path, size: int = 32 * MiB) -> Path:
    """A sparse file with data in known places: 1 MiB at 4 MiB, 64 KiB at 9 MiB + 64 KiB, the last 1 MiB."""
    with path.open("wb") as f:
        f.truncate(size)
        for offset, length in ((4 * MiB, MiB), (9 * MiB + 65536, 65536), (size - MiB, MiB)):
            f.seek(offset)
            f.write(os.urandom(length))
    return path
