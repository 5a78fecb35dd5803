"""What ``filesystem.py`` needs of a file system of any kind: small, so that each kind is read in its own module."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from mounter.ports import FileEntry
from mounter.tsk.image import Region
from mounter.tsk.library import Run
from proxy.errors import MountFailed

# Bytes of a file handed on at once: as much as the appliance gives.
PIECE = 2 * 1024 * 1024


class Native(Protocol):
    """One volume. Inodes are TSK's. Everything raises ``MountFailed`` when the disk or its structures cannot be read."""

    region: Region
    label: str
    """Only of NTFS, whose label is in a file; of others ``recognise`` tells it."""
    root: int

    def names(self, inode: int) -> Sequence[tuple[bytes, int]]:
        """What a directory holds, as the guest sees it: names and inodes, in the order of the disk."""
        ...

    def entry(self, inode: int, path: bytes) -> FileEntry:
        """The facts of an inode under one of its names."""
        ...

    def pieces(self, inode: int, offset: int) -> Iterator[bytes]:
        """A regular file's bytes from ``offset`` on, ``PIECE`` at once."""
        ...

    def content(self, inode: int, offset: int, length: int) -> bytes:
        """Some bytes of a regular file, less at its end."""
        ...

    def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        """As ``GuestFilesystem.xattrs``."""
        ...

    def runs(self, inode: int) -> Sequence[Run]:
        """Where a file's or a directory's content lies in the volume."""
        ...


# What parsing raises when the bytes are not what a format says, where nothing was checked before.
NONSENSE = (struct.error, IndexError, ValueError, OverflowError)


class Damaged(MountFailed):
    """One structure makes no sense; others may. What it describes is listed without facts."""


@contextmanager
def sensible(what: str) -> Iterator[None]:
    """Raises ``Damaged`` for nonsense that is met inside."""
    try:
        yield
    except NONSENSE as error:
        raise Damaged(what, f"its structures make no sense ({error})") from None
