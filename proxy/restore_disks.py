"""The disks of a restore, several at once. ``restore_disk.py`` says what happens to each, and what is proven.

::

    vda   |ask who lives there|------ write ------|flush|---- read back ----|
    vdb   |ask who lives there|-- write --|flush|-- read back --|
    vdc   waits until one of them is done                       |ask …|-- write --| …

The first error of any disk ends the others within a segment's time, and says which disk it was and which are incomplete.

Where the places are finished together (``RestoreTargets.together``: the disks of one import), none can be read back before all
are written, so all are written first and then all are compared.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from proxy.model import ImageInfo, RestorePoint
from proxy.ports import DiskPlace, ImageReader, Progress
from proxy.restore_disk import DiskOptions, DiskPorts, DiskRestore, RestoredDisk

# Two keep a second core and a second device busy while one waits for its flush; more would only share what there is.
DISKS_AT_ONCE = 2

Done = TypeVar("Done")

Work = Callable[[DiskRestore, ImageReader, int, Callable[[], None]], Done]
"""What is done to each disk: of ``DiskRestore``, ``restore`` or ``compare``."""


def restore_disks(
    ports: DiskPorts, options: DiskOptions, point: RestorePoint, disks: Sequence[tuple[ImageInfo, DiskPlace]]
) -> tuple[RestoredDisk, ...]:
    """Restore all disks, at most ``ports.at_once`` at a time, begun in the order given, which is that of the results.
    Raises the first error of any of them when all have ended."""
    if not (ports.targets.together and options.compare):
        return _at_once(_Together(ports, options, point, disks, DiskRestore.restore))
    written = _at_once(_Together(ports, replace(options, compare=False), point, disks, DiskRestore.restore))
    _at_once(_Together(ports, options, point, disks, DiskRestore.compare))
    return tuple(replace(disk, compared=True) for disk in written)


def _at_once(work: "_Together[Done]") -> tuple[Done, ...]:
    helpers = [threading.Thread(target=work.run, name=f"disk-{n}") for n in range(1, work.width)]
    try:
        for thread in helpers:
            thread.start()
        work.run()
        _join(helpers)
    except BaseException:
        work.stop()
        raise
    finally:
        _join(helpers)
    return work.outcome()


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        if thread.ident is not None:
            thread.join()


class _Together(Generic[Done]):
    """State shared by the threads that restore disks; changed under ``_lock`` only."""

    def __init__(
        self,
        ports: DiskPorts,
        options: DiskOptions,
        point: RestorePoint,
        disks: Sequence[tuple[ImageInfo, DiskPlace]],
        work: Work[Done],
    ) -> None:
        self.width = max(1, min(ports.at_once, len(disks)))
        self._free = ports.free
        self._cancelled = ports.cancelled
        self._told = ports.progress
        self._options = options
        self._point = point
        self._disks = disks
        self._work = work
        self._waiting = iter(enumerate(disks))
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._telling = threading.Lock()
        self._ended = False
        self._error: BaseException | None = None
        self._begun: set[int] = set()
        self._done: dict[int, Done] = {}
        progress = None if ports.progress is None else self._tell
        self._ports = replace(ports, free=self._ask, progress=progress, cancelled=self._stopped)

    def run(self) -> None:
        """One thread: disk after disk, to the end or to the first error of any."""
        while (job := self._next()) is not None:
            number, (image, place) = job
            try:
                disk = DiskRestore(self._ports, self._options, image, place)
                with self._ports.repository.open_image(self._point, image.key) as reader:
                    done = self._work(disk, reader, self.width, self._begin(number))
            except BaseException as error:  # noqa: BLE001  # every error is the caller's, who raises the first one
                self._fail(error, image.key, place)
                return
            with self._lock:
                self._done[number] = done

    def stop(self) -> None:
        """No disk is begun any more, and those under way end."""
        with self._lock:
            self._ended = True

    def outcome(self) -> tuple[Done, ...]:
        """Results of all, or the first error, with what it left behind."""
        if self._error is None:
            return tuple(self._done[number] for number in range(len(self._disks)))
        for number in sorted(self._begun - self._done.keys()):
            image, place = self._disks[number]
            self._error.add_note(f"disk {image.key} is not restored: {place} may hold a part of it")
        raise self._error

    def _next(self) -> tuple[int, tuple[ImageInfo, DiskPlace]] | None:
        with self._lock:
            return None if self._ended else next(self._waiting, None)

    def _begin(self, number: int) -> Callable[[], None]:
        def begun() -> None:
            with self._lock:
                self._begun.add(number)

        return begun

    def _fail(self, error: BaseException, key: str, place: DiskPlace) -> None:
        with self._lock:
            if self._error is None:
                error.add_note(f"it came from disk {key}, on its way to {place}")
                self._error = error
            self._ended = True

    def _stopped(self) -> bool:
        return self._ended or (self._cancelled is not None and self._cancelled())

    def _ask(self) -> None:
        # One at a time: a hypervisor is asked about one machine by one thread only.
        with self._asking:
            self._free()

    def _tell(self, progress: Progress) -> None:
        with self._telling:
            if self._told is not None:
                self._told(progress)
