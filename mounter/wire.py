"""Frames between a mount session and the process that has the file systems open: JSON and bytes, nothing executable.

::

    | u32 length of JSON | u32 length of data | JSON, ASCII | data |          little-endian

The other side parses hostile disks, so what it sends is data to be checked: lengths are bounded, no pickle. File names
are bytes that JSON cannot say; they travel as text with ``surrogateescape``, which gives every byte back.
"""

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

from mounter.keys import Key
from mounter.ports import FileEntry, FileType, OperatingSystem, Volume, VolumeState
from proxy.errors import FormatError
from proxy.units import MiB

_HEAD = struct.Struct("<II")

# A batch of entries with the longest paths (4 KiB each) and a piece of a file stay far below; more is an attack.
LARGEST = 64 * MiB


def send(connection: socket.socket, message: Mapping[str, Any], data: bytes = b"") -> None:
    """One frame. Raises ``OSError``."""
    text = json.dumps(message).encode("ascii")
    connection.sendall(_HEAD.pack(len(text), len(data)) + text + data)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    """One frame. Raises ``EOFError`` when the other side is gone, ``TimeoutError``, ``OSError``, ``FormatError``."""
    text_length, data_length = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if text_length > LARGEST or data_length > LARGEST:
        raise FormatError("frame", f"{text_length} and {data_length} bytes are announced")
    text, data = _exactly(connection, text_length), _exactly(connection, data_length)
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError("frame", str(error)) from None
    if not isinstance(message, dict):
        raise FormatError("frame", "not an object")
    return message, data


def text_of(name: bytes) -> str:
    """A name as JSON carries it."""
    return name.decode(errors="surrogateescape")


def bytes_of(text: str) -> bytes:
    """The name again, byte by byte."""
    return text.encode(errors="surrogateescape")


def entry_to_wire(e: FileEntry) -> list[Any]:
    """Fields in the order of ``FileEntry``."""
    target = None if e.link_target is None else text_of(e.link_target)
    return [
        text_of(e.path),
        e.type.value,
        e.size,
        e.mode,
        e.uid,
        e.gid,
        e.mtime_ns,
        e.ctime_ns,
        e.inode,
        target,
        e.links,
        e.allocated,
        *e.device,
    ]


def entry_from_wire(fields: list[Any]) -> FileEntry:
    """Raises ``FormatError``."""
    try:
        path, kind, size, mode, uid, gid, mtime, ctime, inode, target, links, allocated, major, minor = fields
        link = None if target is None else bytes_of(target)
        return FileEntry(
            bytes_of(path),
            FileType(kind),
            int(size),
            int(mode),
            int(uid),
            int(gid),
            int(mtime),
            int(ctime),
            int(inode),
            link,
            int(links),
            int(allocated),
            (int(major), int(minor)),
        )
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FormatError("file entry", str(error)) from None


def key_to_wire(key: Key) -> list[str]:
    """Volume and secret. Only ever sent to a worker of ours, on its socket."""
    return [key.volume, text_of(key.secret)]


def key_from_wire(fields: list[str]) -> Key:
    """Raises ``FormatError``, which does not show the secret."""
    try:
        volume, secret = fields
        return Key(volume, bytes_of(secret))
    except (TypeError, ValueError, AttributeError):
        raise FormatError("key", "not a volume and a secret") from None


def volume_from_wire(fields: Mapping[str, Any]) -> Volume:
    """Raises ``FormatError``."""
    try:
        return Volume(**{**fields, "state": VolumeState(fields.get("state", VolumeState.UNKNOWN))})
    except (TypeError, ValueError) as error:
        raise FormatError("volume", str(error)) from None


def system_from_wire(fields: Mapping[str, Any]) -> OperatingSystem:
    """Raises ``FormatError``."""
    try:
        return OperatingSystem(**fields)
    except TypeError as error:
        raise FormatError("operating system", str(error)) from None


def _exactly(connection: socket.socket, count: int) -> bytes:
    buffer = bytearray(count)
    view = memoryview(buffer)
    while view:
        got = connection.recv_into(view)
        if got == 0:
            raise EOFError
        view = view[got:]
    return bytes(buffer)
