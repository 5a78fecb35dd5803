"""What the process does with its memory: the C library's blocks, and what the garbage collector looks at.

For the bulk loops, which free and take the same few buffers all the time: by itself glibc gives buffers of hundreds of KiB
back to the kernel at once and gets them again as fresh pages, each with a page fault and zeroed. Measured on two cores,
1.5 GiB of data in chunks of 256 KiB: a full backup took 200,000 page faults and 1.2 s of system time, with the limits below
25,000 and 0.6 s, for 2 MiB more of peak memory.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from proxy.units import MiB

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Larger blocks are mapped and unmapped one by one: packs and the like, which live long.
MAPPED_FROM = 4 * MiB

# Free memory at the end of a heap that is kept. Less than what the threads of one heap use in turn would bring the page
# faults back.
KEPT = 8 * MiB

# Heaps. By itself there are up to eight a core, and each keeps what it once needed: reading ahead with eight threads took
# 20 MiB more. Threads wait for each other in malloc too seldom to be measured.
HEAPS = 2


@cache
def keep_freed_memory() -> bool:
    """Set the limits, once a process, best before it has threads (heaps that are there stay). False where the C library
    knows no such limits (it is not glibc): then nothing changes."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    set_limits = [
        mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM),
        mallopt(_M_TRIM_THRESHOLD, KEPT),
        mallopt(_M_ARENA_MAX, HEAPS),
    ]
    return all(set_limits)


@contextmanager
def loading() -> Iterator[None]:
    """For entry points, around their imports: modules and classes stay to the end, and the garbage collector looks at none
    of them, now or later. Else it did a quarter of an import's work (155 and 118 ms, measured), and at the end looked at all
    of them again and again (80 of 330 ms of a process that did nothing else)."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
