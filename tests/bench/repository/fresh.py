"""Memory that is at hand. A virtual machine gives what is free back to its host, within seconds, and takes it again page by
page: 2.7 s of system time a gibibyte where it is 0.4 s else (measured), for whoever writes into memory next. Two thirds of a
restore of ours were that, and it made all contenders alike. So before each measurement as much is taken, and set free at once,
as the work is going to need, but for a page here and there: only what is free in one piece goes back to the host (Linux, free
page reporting), so what lies between those pages stays.
"""

import mmap
from pathlib import Path

from proxy.units import GiB, KiB, MiB

MEMORY = Path("/dev/shm")

SHARE = {"full": 0.6, "restore": 1.1, "known": 0.3, "scan": 0.2}
"""What the work writes at most, of the disk's data: benji's blocks of 4 MiB make the incremental large."""

PROCESS = 256 * MiB
"""What a contender takes for itself at most."""

MOST = 3 * GiB
"""More than the largest work on a disk of the usual size takes."""

APART = 256 * KiB
"""From one page that is kept to the next. The kernel reports free pieces of 2 MiB, and takes pages as they come, mostly in
order: some are kept in each."""


class Fresh:
    """What is kept of the memory that was taken for the current measurement."""

    def __init__(self) -> None:
        self._kept: mmap.mmap | None = None

    def provide(self, directory: Path, amount: int) -> None:
        """Have so many bytes at hand, until the next call, if ``directory`` is in memory: else it is the disk that costs."""
        self._release()
        if not directory.is_relative_to(MEMORY):
            return
        pages = mmap.mmap(-1, amount // APART * APART, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, len(pages), mmap.PAGESIZE):
            pages[at] = 1
        for at in range(0, len(pages), APART):
            pages.madvise(mmap.MADV_DONTNEED, at + mmap.PAGESIZE, APART - mmap.PAGESIZE)
        self._kept = pages

    def _release(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def needed(job: str, data: int) -> int:
    """Bytes, for that work on a disk with so many bytes of data."""
    return min(PROCESS + int(data * SHARE[job]), MOST)


provide = Fresh().provide
