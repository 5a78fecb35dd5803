"""A time that only advances by what is proven to have passed; the package's text has the reasoning."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class BootClock(Protocol):
    """Seconds since this boot, suspend included, and which boot it is."""

    def seconds(self) -> float: ...
    def boot_id(self) -> str: ...


class KernelBootClock:
    """This machine's. ``CLOCK_BOOTTIME`` cannot be set by anybody."""

    def seconds(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return _BOOT_ID.read_text().strip()


@dataclass(frozen=True, slots=True)
class Mark:
    """Trusted seconds ``trusted`` were reached when the boot ``boot_id`` was ``booted`` seconds old."""

    trusted: float
    boot_id: str
    booted: float


class TrustedTime:
    """Goes on from ``last``, the newest mark that was kept; from 0 without one."""

    def __init__(self, last: Mark | None, clock: BootClock) -> None:
        self._clock = clock
        self._boot_id = clock.boot_id()
        self._booted = clock.seconds()
        self._trusted = 0.0
        if last is not None:
            # Another boot began after the mark was kept, so all of it has passed since; of the time between, nothing is proven.
            since = self._booted - last.booted if last.boot_id == self._boot_id else self._booted
            self._trusted = last.trusted + max(since, 0.0)

    def now(self) -> float:
        """Trusted seconds. Never goes back."""
        booted = self._clock.seconds()
        self._trusted += max(booted - self._booted, 0.0)
        self._booted = max(booted, self._booted)
        return self._trusted

    def mark(self) -> Mark:
        """To be kept durably."""
        trusted = self.now()
        return Mark(trusted, self._boot_id, self._booted)
