"""Finding and ending the lab's processes, also from another process and after the starter was killed.

Nothing here trusts a recorded pid alone: pids are used again. A process belongs to a lab when it carries the lab's id,
either in the environment that it was started with, or in the ``/etc/libvirt`` that it sees (QEMU processes get a clean
environment from libvirt, but they live in the private mount namespace of their host). A start time guards each signal.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = "LANFREE_LAB"
"""Environment variable that every process started by the lab carries; its value is the lab's id."""

MARKER = "etc/libvirt/lanfree-lab"
"""File, below a process's root, that holds the lab's id for everything inside a lab host's mount namespace."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process for all time: ``started`` is its start in clock ticks since boot (field 22 of ``/proc/pid/stat``)."""

    pid: int
    started: int
    name: str

    @property
    def alive(self) -> bool:
        """False for zombies too: they run nothing and hold nothing."""
        return look(self.pid) == self

    @property
    def command_line(self) -> str:
        """Its arguments, joined by blanks; empty when it has gone."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal unless the process has gone (or its pid is somebody else's by now)."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def look(pid: int) -> Process | None:
    """The process with that pid now, or ``None`` when there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name stands in parentheses and may hold blanks; proc(5).
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]), name)


def of_lab(lab: str) -> list[Process]:
    """Every living process of the lab with that id, except the caller itself."""
    return [process for process in _everybody() if process.pid != os.getpid() and _belongs(process.pid, lab)]


def end(processes: Iterable[Process], *, grace: float) -> list[Process]:
    """SIGTERM, wait up to ``grace`` seconds, SIGKILL. Returns those that still live after that (normally none)."""
    everyone = list(processes)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in everyone:
            process.signal(number)
            process.signal(signal.SIGCONT)  # a stopped process (Array.freeze) would never see SIGTERM
        if wait_for(lambda: not any(process.alive for process in everyone), timeout=patience):
            break
    return [process for process in everyone if process.alive]


def wait_for(condition: Callable[[], bool], *, timeout: float, every: float = 0.05) -> bool:
    """Poll until ``condition`` holds. Returns whether it did within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def _everybody() -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := look(int(entry.name))) is not None:
            yield process


def _belongs(pid: int, lab: str) -> bool:
    mark = f"{ENVIRONMENT}={lab}".encode()
    try:
        if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return True
    except OSError:  # gone meanwhile, or not ours to look at
        return False
    try:
        return Path(f"/proc/{pid}/root/{MARKER}").read_text().strip() == lab
    except OSError:
        return False
