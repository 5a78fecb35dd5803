"""Serve images of restore points as NBD on Unix sockets: one nbdkit process an image, holes stay holes.

::

    caller ──spawns──> nbdkit + nbdkit_plugin.py ──opener(argument)──> ImageReader ──> repository
                          │ <directory>/<n>.sock, <n>.log   (directory 0700: whoever enters it can read the image)
                          └ <directory>/problems            (one JSON line for each failed read or opening)

Read-only, or copy-on-write: then what clients write goes to a file without a name, nbdkit's own (its filter ``cow``), and
is gone with the server. When that file has reached its limit, every further write is answered with "no space left on
device" (its filter ``error``, told by a file to begin), and reads go on.

The plugin process opens the image by itself, so this module works for any repository: ``opener`` is the name of a
function (``module:function``) that takes ``argument`` (what JSON can say) and returns an ``ImageReader``. Its temporary
files lie in the same directory, which goes with the export.
"""

import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from proxy.closing import Closeable
from proxy.command import spawn, stop
from proxy.errors import (
    FormatError,
    IntegrityError,
    LanfreeError,
    MountFailed,
    NoSpaceForOverlay,
    OverlayFull,
    ToolFailed,
)
from proxy.units import GiB, MiB

# nbdkit answers within a second on a quiet machine; opening a large index over a slow network takes longer.
START_SECONDS = 60.0

# Requests under way in one connection; nbdcopy makes four of them. More do not help: Python runs one at a time outside of
# decompression and reading. Fewer would leave a store over the network idle.
THREADS = 4

# A database is tried out in it, not restored to it.
OVERLAY_LIMIT = 10 * GiB

# The overlay is looked at ten times a second: what comes meanwhile, at 1 GB/s and some, must find room as well.
OVERLAY_MARGIN = 256 * MiB

# Directories of exports are swept only when older (seconds): one that was made just now may not be locked yet.
SWEEP_AGE = 60.0

PREFIX = "lanfree-export-"
ENDING = "ending"
"""File in an export's directory: whoever exported ends it, and tidies up."""

PLUGIN = Path(__file__).with_name("nbdkit_plugin.py")


@dataclass(frozen=True, slots=True)
class ImageToExport:
    """One disk. ``opener``: ``module:function``, called as ``function(argument)`` in another process, under the same
    import path. No secret belongs into ``argument``; it is kept in a private file for the life of the export. ``title``: what
    clients are told that they see (``nbdinfo``)."""

    key: str
    opener: str
    argument: Mapping[str, object]
    title: str = ""


@dataclass(frozen=True, slots=True)
class CopyOnWrite:
    """Clients may write, and see what they wrote, until the export ends. ``directory``: where the overlays lie, on a disk
    with room (``/tmp`` is memory on many machines). ``limit``: bytes that the overlay of each disk may take there."""

    directory: Path
    limit: int = OVERLAY_LIMIT


@dataclass(frozen=True, slots=True)
class Served:
    """An image that is being served: ``socket`` speaks NBD, newstyle, default export."""

    key: str
    socket: Path

    @property
    def uri(self) -> str:
        """As the NBD URI specification has it, for qemu-img, nbdcopy and others."""
        return f"nbd+unix:///?socket={self.socket}"


class Export(Closeable):
    """Several disks of one machine, served until ``close`` or the end of this process, whichever comes first.

    Raises ``MountFailed`` when an image cannot be served, and what the opener raised when that says more
    (``IntegrityError``, ``FormatError``); then nothing is left running. ``NoSpaceForOverlay``: the disk could fill before
    ``cow``'s limit is reached. ``directory``: where to make the private directory of sockets; keep it short, a Unix socket's
    path is at most 107 bytes.
    """

    def __init__(
        self, images: Sequence[ImageToExport], directory: Path | None = None, *, cow: CopyOnWrite | None = None
    ) -> None:
        if cow is not None:
            _check_room(cow, len(images))
        self._cow = cow
        _sweep(Path(directory or tempfile.gettempdir()))
        self.directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        self._lock = _locked(self.directory)
        self._closing = threading.Lock()
        self._keys = [image.key for image in images]
        self._keeper = _Keeper()
        try:
            for number, image in enumerate(images):
                self._start(f"{number}", image)
            self.served: tuple[Served, ...] = tuple(
                Served(image.key, self.directory / f"{number}.sock") for number, image in enumerate(images)
            )
            self._wait()
        except BaseException:  # nothing may be left running, also when a person interrupts
            self.close()
            raise

    def problems(self) -> Sequence[LanfreeError]:
        """What went wrong in the readers until now, oldest first; a client saw EIO for each."""
        path = self.directory / "problems"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [_error(json.loads(line)) for line in lines]

    def ended(self) -> MountFailed | None:
        """Why a server has ended before its time, ``None`` while all of them run."""
        for number, (key, process) in enumerate(zip(self._keys, self._keeper.processes, strict=True)):
            if process.poll() is not None:
                return MountFailed(f"disk {key}", f"nbdkit ended with {process.returncode}: {self._log(number)}")
        return None

    def check(self) -> None:
        """Raises the first problem of the readers, or ``MountFailed`` when a server has ended; else does nothing."""
        for problem in self.problems():
            raise problem
        ended = self.ended()
        if ended is not None:
            raise ended

    def close(self) -> None:
        """End the servers and remove the directory. Safe to call twice and from any thread."""
        with suppress(OSError):  # full, or gone already: the servers wait a little before they end, then
            (self.directory / ENDING).touch()
        self._keeper.end()
        with self._closing:
            shutil.rmtree(self.directory, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _start(self, name: str, image: ImageToExport) -> None:
        description = self.directory / f"{name}.json"
        description.touch(mode=0o600)
        facts = {"disk": image.key, "opener": image.opener, "argument": dict(image.argument), "title": image.title}
        description.write_text(json.dumps(facts), encoding="utf-8")
        argv = ["nbdkit", "--foreground", "--exit-with-parent", "--threads", str(THREADS)]
        argv += ["--readonly"] if self._cow is None else ["--filter=error", "--filter=cow"]
        argv += ["--unix", str(self.directory / f"{name}.sock"), "python", str(PLUGIN)]
        argv += [f"description={description}", f"problems={self.directory / 'problems'}"]
        env = {}
        if self._cow is not None:
            full = self.directory / f"{name}.full"
            argv += [f"overlay={self._cow.directory}", f"limit={self._cow.limit}", f"full={full}", "error=ENOSPC"]
            argv += [
                f"error-{what}-{fact}" for what in ("pwrite", "zero", "trim") for fact in ("rate=1", f"file={full}")
            ]
            env["TMPDIR"] = str(self._cow.directory)
        self._keeper.start(argv, self.directory / f"{name}.log", env)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for number, served in enumerate(self.served):
            # nbdkit makes the socket before it calls the plugin's after_fork, and serves only after that: the socket
            # alone does not say that the image could be opened, so look for the line that nbdkit's answer gives.
            while not _answers(served.socket):
                self.check()
                if time.monotonic() > deadline:
                    raise MountFailed(
                        f"disk {served.key}", f"nbdkit did not serve it within {START_SECONDS:g} s: {self._log(number)}"
                    )
                time.sleep(0.02)

    def _log(self, number: int) -> str:
        path = self.directory / f"{number}.log"
        return path.read_text(encoding="utf-8", errors="replace").strip()[-1000:] if path.exists() else ""


def module_path() -> str:
    """``PYTHONPATH`` for helpers: nbdkit runs the system's interpreter, which must find our packages and our libraries."""
    return os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path)


class _Keeper:
    """Owns the server processes on a thread that lives as long as they shall.

    nbdkit's --exit-with-parent is Linux's "parent death signal", and there the parent is the *thread* that forked. A
    worker thread of a pool that opened an export and went away would take the servers with it; so they are started by
    a thread that waits for ``end``.
    """

    def __init__(self) -> None:
        self.processes: list[Popen[bytes]] = []
        self._wanted: list[tuple[list[str], Path, Mapping[str, str]]] = []
        self._failed: ToolFailed | None = None
        self._wake = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="nbdkit-keeper", daemon=True)
        self._thread.start()

    def start(self, argv: list[str], log: Path, env: Mapping[str, str]) -> None:
        """Start one server and wait until it was forked. Raises ``ToolFailed`` when the program is missing."""
        with self._wake:
            self._wanted.append((argv, log, env))
            self._wake.notify_all()
            self._wake.wait_for(lambda: not self._wanted or self._failed is not None)
            if self._failed is not None:
                raise self._failed

    def end(self) -> None:
        """Stop all servers and wait for them."""
        with self._wake:
            self._ended = True
            self._wake.notify_all()
        self._thread.join()

    def _run(self) -> None:
        with self._wake:
            while not self._ended:
                while self._wanted and self._failed is None:
                    self._spawn()
                    self._wake.notify_all()
                self._wake.wait()
        for process in self.processes:
            # nbdkit waits for its clients to go after SIGTERM; a client that hangs must not keep it.
            stop(process, grace=2.0)

    def _spawn(self) -> None:
        argv, log, env = self._wanted[0]
        try:
            with log.open("ab") as output:
                self.processes.append(spawn(argv, log=output, env={**env, "PYTHONPATH": module_path()}))
        except ToolFailed as error:
            self._failed = error
        self._wanted.pop(0)


def _check_room(cow: CopyOnWrite, disks: int) -> None:
    """Several exports may count on the same room: the limit of each holds, what the file system says then counts."""
    try:
        free = shutil.disk_usage(cow.directory).free
    except OSError as error:
        raise MountFailed(f"{cow.directory} for overlays", error.strerror or str(error)) from None
    needed = disks * (cow.limit + OVERLAY_MARGIN)
    if free < needed:
        hint = "choose a smaller limit, fewer disks, or a place with more room"
        raise NoSpaceForOverlay(str(cow.directory), free, needed, hint=hint)


def _locked(directory: Path) -> int | None:
    """A descriptor that holds the directory's lock, ``None`` when another process has it. The lock dies with us."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(place: Path) -> None:
    """Remove what exports of killed processes have left there: directories of ours that nobody locks."""
    for directory in place.glob(f"{PREFIX}*"):
        try:
            old = time.time() - directory.stat().st_mtime > SWEEP_AGE
            lock = _locked(directory) if old and directory.lstat().st_uid == os.geteuid() else None
        except OSError:
            continue  # gone meanwhile, or not ours
        if lock is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)


def _answers(path: Path) -> bool:
    """Whether an NBD server greets on the socket; nbdkit does so only after the plugin has opened its image."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            return connection.recv(8) == b"NBDMAGIC"
        except OSError:
            return False


def _error(problem: Mapping[str, str]) -> LanfreeError:
    """The reader's error again, in this process."""
    disk, message = f"disk {problem.get('disk')}", problem.get("message", "")
    for kind in (IntegrityError, FormatError):
        if problem.get("code") == kind.code:
            return kind(disk, message)
    if problem.get("code") == OverlayFull.code:
        return OverlayFull(disk, message)
    return MountFailed(disk, message)
