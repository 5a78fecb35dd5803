"""The process that has a guest's disks open: ``python -m mounter.worker SOCKET``. The other end is ``remote.py``.

It parses what may be hostile, so it is its own process: whatever happens to it ends one session and nothing else. It
ends when the session's process is gone, also in the middle of a call.
"""

import contextlib
import importlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count
from typing import Any

import psutil

from mounter import wire
from mounter.batch import entries_to_data
from mounter.ports import GuestFilesystem, Volume
from proxy.errors import LanfreeError, MountFailed

Reply = tuple[dict[str, Any], bytes]

# Entries of a directory in one frame: long names that are not UTF-8 take 1.6 KiB each.
LISTED = 1_000


class _Server:
    """One connection, one file system; requests one after the other. While the session works on a batch of a walk, the next
    one is made (``prepare``): an index takes two thirds of the time."""

    def __init__(self) -> None:
        self._walks: set[int] = set()
        self._wanted: int | None = None
        self._ready: dict[int, Reply | Exception] = {}
        self._filesystem: GuestFilesystem | None = None
        self._streams: dict[int, Iterator[Any]] = {}
        self._numbers = count()

    def answer(self, request: dict[str, Any]) -> Reply:
        operation: Callable[[dict[str, Any]], Reply] = getattr(self, f"do_{request['operation']}")
        return operation(request)

    def do_open(self, request: dict[str, Any]) -> Reply:
        module, _, function = request["opener"].partition(":")
        argument = dict(request["argument"])
        if request.get("keys"):
            argument["keys"] = [wire.key_from_wire(fields) for fields in request["keys"]]
        self._filesystem = getattr(importlib.import_module(module), function)(argument)
        return {}, b""

    def do_volumes(self, _request: dict[str, Any]) -> Reply:
        return {"volumes": [asdict(v) for v in self._opened.volumes()]}, b""

    def do_operating_systems(self, _request: dict[str, Any]) -> Reply:
        return {"systems": [asdict(s) for s in self._opened.operating_systems()]}, b""

    def do_walk(self, request: dict[str, Any]) -> Reply:
        reply = self._stream(self._opened.walk(self._volume(request)))
        self._walks.add(reply[0]["stream"])
        return reply

    def do_read(self, request: dict[str, Any]) -> Reply:
        path = wire.bytes_of(request["path"])
        return self._stream(self._opened.read(self._volume(request), path, request["offset"]))

    def do_list_directory(self, request: dict[str, Any]) -> Reply:
        found = self._opened.list_directory(self._volume(request), wire.bytes_of(request["path"]))
        return self._stream(iter([found[start : start + LISTED] for start in range(0, len(found), LISTED)]))

    def do_entry(self, request: dict[str, Any]) -> Reply:
        found = self._opened.entry(self._volume(request), wire.bytes_of(request["path"]))
        return {"entries": [wire.entry_to_wire(found)]}, b""

    def do_xattrs(self, request: dict[str, Any]) -> Reply:
        found = self._opened.xattrs(self._volume(request), wire.bytes_of(request["path"]))
        return {"xattrs": [[wire.text_of(name), wire.text_of(value)] for name, value in found.items()]}, b""

    def do_next(self, request: dict[str, Any]) -> Reply:
        number = request["stream"]
        self._wanted = number if number in self._walks else None
        reply = self._ready.pop(number, None)
        if isinstance(reply, Exception):
            raise reply
        return reply or self._following(number)

    def prepare(self) -> None:
        """What will be asked for next, if that is known."""
        number, self._wanted = self._wanted, None
        if number is not None and number in self._streams:
            try:
                self._ready[number] = self._following(number)
            except Exception as error:  # noqa: BLE001  it belongs to the request that is to come
                self._ready[number] = error

    def _following(self, number: int) -> Reply:
        item = next(self._streams[number], None)
        if item is None:
            del self._streams[number]
            return {"end": True}, b""
        if isinstance(item, bytes):
            return {}, item
        return {}, entries_to_data(item)

    def do_forget(self, request: dict[str, Any]) -> Reply:
        self._streams.pop(request["stream"], None)
        self._ready.pop(request["stream"], None)
        self._walks.discard(request["stream"])
        return {}, b""

    def close(self) -> None:
        self._streams.clear()
        if self._filesystem is not None:
            self._filesystem.close()

    @property
    def _opened(self) -> GuestFilesystem:
        if self._filesystem is None:
            raise MountFailed("the file systems", "they are not open yet")
        return self._filesystem

    def _volume(self, request: dict[str, Any]) -> Volume:
        for volume in self._opened.volumes():
            if volume.id == request["volume"]:
                return volume
        raise MountFailed(f"volume {request['volume']}", "there is no such volume")

    def _stream(self, pieces: Iterator[Any]) -> Reply:
        number = next(self._numbers)
        self._streams[number] = pieces
        return {"stream": number}, b""


def main(path: str) -> None:
    """Serve the session that listens at ``path`` until it says ``close`` or is gone."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    server = _Server()
    while True:
        try:
            request, _ = wire.receive(connection)
        except (EOFError, OSError):
            break
        if request["operation"] == "close":
            break
        try:
            reply = server.answer(request)
        except LanfreeError as error:
            facts = {"code": error.code, "message": error.message, "hint": error.hint}
            reply = {"error": {**facts, "reason": str(getattr(error, "reason", ""))}}, b""
        except Exception as error:  # noqa: BLE001  a hostile disk may trigger anything; it ends the call, with its name
            reply = {"error": {"code": "", "message": f"{type(error).__name__}: {error}", "hint": ""}}, b""
        try:
            wire.send(connection, *reply)
        except OSError:
            break
        server.prepare()
    server.close()


def _end_with(connection: socket.socket) -> None:
    """End this process and its children (the appliance) when the session is gone, whatever we are doing.

    First in order: the main thread sees the end of the connection as well. When it hangs in a call, the children are
    killed, which makes libguestfs return and clean up; when even that does not help, everything is killed.
    """
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP)
    poll.poll()
    patience = threading.Event()
    patience.wait(2.0)
    with contextlib.suppress(psutil.Error, OSError):  # a sandboxed worker may not look into /proc, and has no children
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    patience.wait(2.0)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
