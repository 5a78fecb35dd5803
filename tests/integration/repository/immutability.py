"""The immutability helper as a process of its own, for tests; whatever it made immutable is mutable again afterwards."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from appliance.immutable.attribute import Refusal, unprotect
from proxy import command
from proxy.errors import RepositoryUnavailable
from proxy.repository.stores.immutable import ImmutabilityClient

PROCESS = Path(__file__).with_name("immutability_process.py")
DAY = 86400.0
STARTING = 20.0


@dataclass
class Helper:
    """``boot``: a file with ``boot_id seconds`` that stands in for the kernel's clock, if there is one."""

    directory: Path
    root: Path
    minimum: float
    boot: Path | None = None
    process: "subprocess.Popen[bytes] | None" = None
    words: list[str] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.directory / "socket"

    def client(self) -> ImmutabilityClient:
        return ImmutabilityClient(self.socket, self.root)

    def set_clock(self, boot_id: str, seconds: float) -> None:
        assert self.boot is not None
        scratch = self.boot.with_suffix(".new")
        scratch.write_text(f"{boot_id} {seconds}")
        scratch.rename(self.boot)

    def start(self, *more: str) -> None:
        words = [sys.executable, str(PROCESS), str(self.boot or "-"), "--root", str(self.root), "--user", "root"]
        words += ["--minimum-days", str(self.minimum / DAY), "--state", str(self.directory / "state")]
        words += ["--socket", str(self.socket), *more]
        with (self.directory / "log").open("ab") as log:
            self.process = command.spawn(words, log=log)
        deadline = time.monotonic() + STARTING
        while not self._answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            command.stop(self.process)

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def _answers(self) -> bool:
        with suppress(RepositoryUnavailable):
            return self.client().status()["minimum"] > 0
        return False


@contextmanager
def immutability_helper(directory: Path, root: Path, *, minimum: float, boot: bool = False) -> Iterator[Helper]:
    """Start it for ``root``, with a minimum of so many seconds; with ``boot`` under a clock that the test moves."""
    directory.mkdir()
    helper = Helper(directory, root, minimum, directory / "boot" if boot else None)
    if boot:
        helper.set_clock("first", 1000.0)
    try:
        helper.start()
        yield helper
    finally:
        helper.stop()
        make_mutable(root)


def make_mutable(root: Path) -> None:
    """So that the test's directory can be removed."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                with suppress(Refusal):
                    unprotect(file)
            finally:
                os.close(file)
