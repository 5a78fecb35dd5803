"""One file out of a restore point: to a stream, or into a directory under its own name, all of it or nothing."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mounter.ports import FileEntry, FileType, shown
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
    partial = f".lanfree-{secrets.token_hex(8)}.part".encode()
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RestoreRefused(str(directory), str(error.strerror), hint="name an existing directory") from None
    try:
        done = _write(session, path, entry, folder, partial)
        _publish(folder, partial, final, directory, overwrite=overwrite)
    except OSError as error:
        raise RestoreRefused(str(directory / os.fsdecode(final)), str(error.strerror)) from None
    finally:
        _remove(folder, partial)
        os.close(folder)
    return Extracted(done.size, done.sha256, directory / os.fsdecode(final))


def _write(session: Readable, path: bytes, entry: FileEntry, folder: int, partial: bytes) -> Extracted:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(partial, flags, 0o600, dir_fd=folder), "wb") as file:
        done = to_stream(session, path, file)
        file.flush()
        os.fchmod(file.fileno(), entry.mode & 0o777)
        os.utime(file.fileno(), ns=(entry.mtime_ns, entry.mtime_ns))
        os.fsync(file.fileno())
    return done


def _publish(folder: int, partial: bytes, final: bytes, directory: Path, *, overwrite: bool) -> None:
    """Give the whole file its name. A link refuses a taken name in one step; a rename replaces it in one step."""
    if overwrite:
        os.replace(partial, final, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        try:
            os.link(partial, final, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            taken = str(directory / os.fsdecode(final))
            raise RestoreRefused(taken, "it exists", hint="choose another directory, or ask to overwrite") from None
    os.fsync(folder)


def _remove(folder: int, partial: bytes) -> None:
    try:
        os.unlink(partial, dir_fd=folder)
    except FileNotFoundError:
        return
