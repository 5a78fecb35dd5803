"""Runs inside nbdkit (``nbdkit python``): serves one ``proxy.ports.ImageReader`` read-only. Started by ``export.py``.

This file is executed by nbdkit as its main module and is never imported. It knows no repository: the description file
names a function that opens the image (``opener``: ``module:function``) and what to give it (``argument``: JSON).

Parameters: ``description=FILE`` (JSON of disk, opener, argument and title), ``problems=FILE`` (one JSON line for each
failure, of all disks of a machine in order). For copy-on-write also ``overlay=DIRECTORY`` (where nbdkit's filter has its
unnamed file), ``limit=BYTES`` that it may take, ``full=FILE`` to make when it does.
"""

import errno
import importlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from itertools import islice
from pathlib import Path
from typing import Any

import nbdkit

from mounter.export import ENDING
from mounter.readahead import ReadAhead
from proxy.errors import LanfreeError, OverlayFull
from proxy.extents import Extent, Kind
from proxy.heap import keep_freed_memory
from proxy.ports import ImageReader
from proxy.units import MiB, format_size

API_VERSION = 2

# An answer to "block status" with more extents than this makes clients wait for what they rarely use; they ask again.
EXTENTS_IN_AN_ANSWER = 1024

# A damaged chunk is read over and over by a retrying kernel; the file of problems must not grow with it.
PROBLEMS_KEPT = 100

# As the NBD protocol has it for servers that say nothing; larger requests would take that much memory each.
LARGEST_REQUEST = 32 * MiB

# Seconds between looks at the overlay. What is written meanwhile comes on top of the limit (``export.OVERLAY_MARGIN``).
LOOK = 0.1

# Seconds for a killed process' last threads.
PARENT_ENDING = 10.0

_parameters: dict[str, str] = {}
_parent = os.getppid()
_disk = _title = ""
_problems = 0
_lock = threading.Lock()
_image: "_Image | None" = None


class _Image:
    """An open image and its map, for looking up extents by offset."""

    def __init__(self, reader: ImageReader) -> None:
        self.reader = reader
        self.ahead = ReadAhead(reader)
        self.map: list[Extent] = list(reader.extents()) if reader.can_report_extents else []
        self.starts = [e.start for e in self.map]


def config(key: str, value: str) -> None:
    _parameters[key] = value


def config_complete() -> None:
    missing = {"description", "problems"} - _parameters.keys()
    if missing:
        raise ValueError(f"missing parameters: {', '.join(sorted(missing))}")


def thread_model() -> int:
    return int(nbdkit.THREAD_MODEL_PARALLEL)


def after_fork() -> None:
    """Open the image once for all connections: here, because threads that it starts would not survive a fork."""
    global _disk, _image, _title  # noqa: PLW0603  nbdkit's callbacks share nothing but the module
    keep_freed_memory()  # the same few buffers are taken and freed with every request
    # What an opener keeps while the image is open goes with the export's directory, however this process ends.
    tempfile.tempdir = str(_directory())
    try:
        description = json.loads(Path(_parameters["description"]).read_text(encoding="utf-8"))
        _disk, _title = description["disk"], description["title"]
        module, _, function = description["opener"].partition(":")
        opener = getattr(importlib.import_module(module), function)
        _image = _Image(opener(description["argument"]))
        if "limit" in _parameters:
            threading.Thread(target=_watch_overlay, args=(_overlay(),), daemon=True).start()
    except Exception as error:  # whatever an opener raises ends this process, and its words must reach the parent
        _note(error)
        raise


def cleanup() -> None:
    if _image is not None:
        _image.ahead.close()
        _image.reader.close()
    if _abandoned():
        # Whoever exported was killed, and so are the servers beside us: nobody else will tidy up soon.
        shutil.rmtree(_directory(), ignore_errors=True)


def _abandoned() -> bool:
    """Whether we end because whoever exported is dead. The signal comes when the thread that started us has ended, the
    process may have others that have not yet; it is gone when it is our parent no more."""
    deadline = time.monotonic() + PARENT_ENDING
    while os.getppid() == _parent:
        if (_directory() / ENDING).exists() or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def export_description(_handle: object) -> str:
    return _title


def block_size(_handle: object) -> tuple[int, int, int]:
    # Any byte can be read; a chunk at a time is cheapest, since it is decompressed as a whole.
    return 1, max(_opened().reader.granularity, 4096), LARGEST_REQUEST


def get_size(_handle: object) -> int:
    return _opened().reader.size


def can_multi_conn(_handle: object) -> bool:
    return True  # read-only and one reader for all: every connection sees the same bytes


def can_extents(_handle: object) -> bool:
    return _opened().reader.can_report_extents


def pread(_handle: object, buffer: Any, offset: int, _flags: int) -> None:
    try:
        _opened().ahead.read_into(offset, memoryview(buffer))
    except Exception as error:  # the client gets EIO whatever happened; the reason goes to the parent
        nbdkit.set_error(errno.EIO)
        _note(error)
        raise


def extents(_handle: object, count: int, offset: int, flags: int) -> list[tuple[int, int, int]]:
    image = _opened()
    first = bisect_right(image.starts, offset) - 1
    most = 1 if flags & nbdkit.FLAG_REQ_ONE else EXTENTS_IN_AN_ANSWER
    hole = nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO
    return [
        (e.start, e.length, hole if e.kind is Kind.ZERO else 0)
        for e in islice(image.map, first, first + most)
        if e.start < offset + count
    ]


# nbdkit looks this name up; nothing in this module may mean the builtin.
def open(_readonly: bool) -> object:  # noqa: A001
    return object()


def _directory() -> Path:
    """The export's private one, which is removed when it is closed, and swept when that could not be."""
    return Path(_parameters["description"]).parent


def _opened() -> _Image:
    if _image is None:
        raise RuntimeError("no image is open")
    return _image


def _watch_overlay(overlay: int) -> None:
    """Let nbdkit's filter refuse writes from when the overlay has reached its limit. It never gets smaller."""
    limit = int(_parameters["limit"])
    while os.fstat(overlay).st_blocks * 512 < limit:
        time.sleep(LOOK)
    Path(_parameters["full"]).touch(mode=0o600)
    _note(OverlayFull(f"disk {_disk}", f"what was written to it has reached the limit of {format_size(limit)}"))


def _overlay() -> int:
    """Our own descriptor of the filter's file. It has no name, but the kernel tells where it was made."""
    place = os.path.realpath(_parameters["overlay"]) + "/"
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(link)  # noqa: PTH115  text to look at, not a path to follow
        except OSError:
            continue  # it was the descriptor of the listing
        if target.startswith(place) and target.endswith(" (deleted)"):
            return os.dup(int(link.name))
    raise FileNotFoundError(f"no overlay in {place}")


def _note(error: Exception) -> None:
    """One line for the parent, at once on disk: kind and words of the error."""
    global _problems  # noqa: PLW0603
    with _lock:
        _problems += 1
        if _problems > PROBLEMS_KEPT:
            return
        code = error.code if isinstance(error, LanfreeError) else type(error).__name__
        line = json.dumps({"disk": _disk, "code": code, "message": str(error)}) + "\n"
        descriptor = os.open(_parameters["problems"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        sys.stderr.write(line)
