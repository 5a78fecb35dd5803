"""A machine of very many small files, none of which is ever in a list of all."""

from collections.abc import Iterator, Mapping, Sequence

from mounter.ports import FileEntry, FileType, Volume

VOLUME = Volume("v", "/dev/sda1", "ext4", "", "u", 1 << 40, "/")
CONTENT = b"a small file, as most of them are\n"


class ManyFiles:
    """``directories`` with ``files`` each. ``linked``: every file has its second name in the second half of the machine, so
    that all of the first half have to be remembered."""

    def __init__(self, directories: int, files: int, *, linked: bool = False) -> None:
        self._directories = directories
        self._files = files
        self._linked = linked

    def volumes(self) -> Sequence[Volume]:
        """One."""
        return [VOLUME]

    def locate(self, path: bytes) -> tuple[Volume, bytes]:
        """In it."""
        return VOLUME, path

    def entry(self, path: bytes) -> FileEntry:
        """Only the root is asked for by its path."""
        return self._directory(path, 2)

    def list_directory(self, path: bytes) -> Sequence[FileEntry]:
        """Made when it is asked for."""
        if path == b"/":
            return [self._directory(b"/d%06d" % n, 10 + n) for n in range(self._directories)]
        number = int(path[2:])
        half = self._directories // 2
        first = 1_000_000 + (number % half if self._linked else number) * self._files
        return [
            FileEntry(
                b"%s/f%06d" % (path, n),
                *(FileType.FILE, len(CONTENT), 0o644, 0, 0, 1_700_000_000_123_456_789, 0, first + n),
                links=2 if self._linked else 1,
            )
            for n in range(self._files)
        ]

    def read(self, path: bytes) -> Iterator[bytes]:
        """The same in each."""
        yield CONTENT

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """None."""
        return {}

    def _directory(self, path: bytes, inode: int) -> FileEntry:
        return FileEntry(path, FileType.DIRECTORY, 0, 0o755, 0, 0, 1_700_000_000_000_000_000, 0, inode)
