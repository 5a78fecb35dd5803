"""One file out of a restore point: to a stream, or into a directory under its own name, all of it or nothing."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mounter.ports import FileEntry, FileType, shown
from mounter.restore.new_file import NewFile
from proxy.errors import GuestFileNotFound, MountFailed, RestoreRefused


class Readable(Protocol):
    """What an extraction needs: a ``MountSession``. Paths are guest paths."""

    def entry(self, path: bytes) -> FileEntry: ...
    def read(self, path: bytes) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was written. ``sha256`` in hex, over the bytes that were written; ``target``: where, ``None`` for a stream."""

    size: int
    sha256: str
    target: Path | None = None


def to_stream(session: Readable, path: bytes, stream: BinaryIO) -> Extracted:
    """Write a regular file's bytes. Raises ``GuestFileNotFound``, ``MountFailed``; then part of it may be written."""
    entry = session.entry(path)
    if entry.type is not FileType.FILE:
        raise GuestFileNotFound(shown(path), f"is a {entry.type}, not a regular file")
    digest = hashlib.sha256()
    size = 0
    for piece in session.read(path):
        stream.write(piece)
        digest.update(piece)
        size += len(piece)
    if size != entry.size:
        raise MountFailed(shown(path), f"{size} bytes could be read of {entry.size}")
    return Extracted(size, digest.hexdigest())


def into_directory(
    session: Readable, path: bytes, directory: Path, *, name: bytes | None = None, overwrite: bool = False
) -> Extracted:
    """Restore a regular file into an existing directory, under the last part of its path or ``name``.

    The file appears whole, durable, and with the guest's permission bits (without set-user-id and set-group-id) and
    modification time, or not at all. Nothing outside ``directory`` is ever touched, whatever the guest calls its files.
    Raises ``RestoreRefused`` when the name is taken (unless ``overwrite``) or impossible, and as ``to_stream``.
    """
    final = name if name is not None else path.rsplit(b"/", 1)[-1]
    if final in (b"", b".", b"..") or b"/" in final or b"\0" in final:
        raise RestoreRefused(str(directory), f"{shown(final)!r} is no name for a file")
    entry = session.entry(path)
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreRefused(str(directory), str(error.strerror), hint="name an existing directory") from None
    target = directory / os.fsdecode(final)
    try:
        with NewFile(folder) as new, os.fdopen(os.dup(new.descriptor), "wb") as file:
            done = to_stream(session, path, file)
            file.flush()
            os.fchmod(new.descriptor, entry.mode & 0o777)
            os.utime(new.descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
            os.fsync(new.descriptor)
            new.publish(final, replace=overwrite)
        os.fsync(folder)
    except FileExistsError:
        raise RestoreRefused(str(target), "it exists", hint="choose another directory, or ask to overwrite") from None
    except OSError as error:
        raise RestoreRefused(str(target), str(error.strerror)) from None
    finally:
        os.close(folder)
    return Extracted(done.size, done.sha256, target)
