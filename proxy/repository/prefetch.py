"""Reading ahead for a copy: what it is going to ask for is fetched, in few large requests, before it asks.

::

    the disk             |---- window 1 ----|---- window 2 ----|---- window 3 ----|      planned one after the other
    chunks of a window   sorted by pack and offset; neighbours, and what lies close, become one request
    requests             under way, or held until the last of their chunks was taken: at most ``ahead`` bytes
    workers              take their chunks in the order of the disk, in any number of threads

A store that answers slowly is asked several things at once; a disk is read in the order of its packs; whoever decompresses
finds the bytes in memory. Nothing here judges what was read: the reader compares every chunk with its id.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator

from proxy.closing import Closeable
from proxy.errors import FormatError, IntegrityError
from proxy.heap import keep_freed_memory
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository.packs import Place
from proxy.units import KiB, MiB

# Four windows. At 30 ms a request, as many of 2 MiB (4 MiB of disk, compressed) bring some 250 MB/s. More would bring more
# from a slower store, at as much more memory for every disk that is restored at once.
AHEAD = 16 * MiB
_WINDOWS = 4

# What is read and thrown away rather than asked around: at 100 MB/s that takes as long as half a millisecond's seek. Never
# more than a quarter of a chunk, so that the bound of what is held stays one.
GAP = 48 * KiB

# Requests under way. A window may be several: images that grew over years lie in many packs.
THREADS = 8

# Of chunk sizes from 4 KiB on: a window in chunks, so that planning one never takes long.
_WINDOW_CHUNKS = 1024

Reference = tuple[int, bytes, Place]
"""Number of a chunk in its image, its id, and where it is."""


class _Request:
    """One range of a pack. ``left``: chunks in it that nobody took yet. ``data`` is empty if the range cannot be had."""

    __slots__ = ("data", "end", "error", "left", "pack", "start")

    def __init__(self, place: Place) -> None:
        self.pack = place.pack
        self.start = place.offset
        self.end = _end(place)
        self.left = 1
        self.data: bytes | None = None
        self.error: Exception | None = None

    def covers(self, place: Place, gap: int) -> bool:
        """Whether the chunk can be had with it; then it is."""
        end = max(self.end, _end(place))
        if place.pack != self.pack or place.offset > self.end + gap:
            return False
        self.end = end
        self.left += 1
        return True


class Prefetch(Closeable):
    """``references``: of the chunks that will be taken, in ascending order; read lazily. ``ahead``: bytes held at most (and
    a window more while a reader is ahead of the plan; one that is far ahead gets nothing from here)."""

    def __init__(self, store: ObjectStore, references: Iterable[Reference], chunk_size: int, ahead: int) -> None:
        keep_freed_memory()
        self._store = store
        self._references: Iterator[Reference] | None = iter(references)
        self._window = min(max(ahead // _WINDOWS // chunk_size, 1), _WINDOW_CHUNKS)
        self._room = ahead - self._window * chunk_size
        self._most = ahead
        self._gap = min(GAP, chunk_size // 4)
        self._held = 0
        self._planned = -1
        self._passed: set[int] = set()
        self._table: dict[int, tuple[Reference, _Request]] = {}
        self._queue: deque[_Request] = deque()
        self._closed = False
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._arrived = threading.Condition(lock)
        self._threads = [threading.Thread(target=self._run, name=f"fetch-{n}", daemon=True) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def take(self, number: int) -> tuple[Reference, memoryview | None] | None:
        """A chunk and its stored bytes (no bytes: they cannot be had there). ``None`` for one that is not among
        the references, was taken before, or is too far ahead. Waits for the request; raises what the store raised."""
        with self._arrived:
            while number > self._planned and self._references is not None and self._held <= self._most:
                self._plan()
            found = self._table.pop(number, None)
            if found is None:
                if number > self._planned:
                    self._passed.add(number)
                return None
            reference, request = found
            while request.data is None and request.error is None and not self._closed:
                self._arrived.wait()
            request.left -= 1
            if not request.left:
                self._held -= request.end - request.start
                self._work.notify()
            if request.error is not None:
                raise request.error
            if not request.data:
                return reference, None
            place = reference[2]
            at = place.offset - request.start
            return reference, memoryview(request.data)[at : _end(place) - request.start]

    def close(self) -> None:
        """Fetch nothing more. Returns when the requests under way have ended."""
        with self._work:
            self._closed = True
            self._references = None
            self._queue.clear()
            self._work.notify_all()
            self._arrived.notify_all()
        for thread in self._threads:
            thread.join()
        self._table.clear()

    def _run(self) -> None:
        """One thread that fetches, to the end of the references."""
        while (request := self._next()) is not None:
            data, error = b"", None
            try:
                data = self._store.get(layout.pack_name(request.pack), request.start, request.end - request.start)
            except (FileNotFoundError, FormatError, IntegrityError):
                pass  # each chunk for itself, then: the trouble may be another's
            except Exception as raised:  # noqa: BLE001  # it belongs to whoever waits for the bytes
                error = raised
            with self._arrived:
                request.data, request.error = data, error
                self._arrived.notify_all()

    def _next(self) -> _Request | None:
        with self._work:
            while not self._closed:
                if self._queue:
                    return self._queue.popleft()
                if self._references is not None and self._held <= self._room:
                    self._plan()
                elif self._references is None and not self._held:
                    return None
                else:
                    self._work.wait()
            return None

    def _plan(self) -> None:
        """Make the next window's requests. The lock is held."""
        window: list[Reference] = []
        try:
            for reference in self._references or ():
                if reference[0] in self._passed:
                    self._passed.discard(reference[0])
                    continue
                window.append(reference)
                if len(window) >= self._window:
                    break
            else:
                self._references = None
        except IntegrityError:
            self._references = None  # whoever reads that chunk meets the damage, and names it
        made: list[_Request] = []
        for reference in sorted(window, key=_by_place):
            if not made or not made[-1].covers(reference[2], self._gap):
                made.append(_Request(reference[2]))
            self._table[reference[0]] = reference, made[-1]
        self._held += sum(request.end - request.start for request in made)
        self._queue.extend(made)
        if window:
            self._planned = window[-1][0]
        self._work.notify_all()


def _end(place: Place) -> int:
    return place.offset + layout.split_stored(place.word)[1]


def _by_place(reference: Reference) -> tuple[bytes, int]:
    place = reference[2]
    return place.pack, place.offset
