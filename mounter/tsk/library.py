"""The Sleuth Kit's view of one volume, through its Python binding: the only module that imports ``pytsk3``.

Addresses ("inodes") are TSK's: inode numbers of ext, MFT record numbers of NTFS, places of directory entries for FAT.
TSK finds deleted files as well; they are never given out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytsk3

from mounter.tsk.image import Region
from proxy.errors import LanfreeError, MountFailed

_ALLOCATED = int(pytsk3.TSK_FS_NAME_FLAG_ALLOC)
_VIRTUAL = (int(pytsk3.TSK_FS_NAME_TYPE_VIRT), int(pytsk3.TSK_FS_NAME_TYPE_VIRT_DIR))
_HOLE = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE) | int(pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER)
_RESIDENT = int(pytsk3.TSK_FS_ATTR_RES)
_DEFAULT = int(pytsk3.TSK_FS_ATTR_TYPE_DEFAULT)
_NTFS_DATA = int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA)
_DIRECTORY = int(pytsk3.TSK_FS_META_TYPE_DIR)
_KINDS = {
    "ext": pytsk3.TSK_FS_TYPE_EXT_DETECT,
    "ntfs": pytsk3.TSK_FS_TYPE_NTFS,
    "fat": pytsk3.TSK_FS_TYPE_FAT_DETECT,
    "exfat": pytsk3.TSK_FS_TYPE_EXFAT,
}


@dataclass(frozen=True, slots=True)
class Child:
    """A name in a directory. ``size`` in bytes, ``mtime_ns`` since 1970, ``mode``: permission bits; as TSK reads them."""

    name: bytes
    inode: int
    directory: bool
    size: int
    mtime_ns: int
    mode: int


@dataclass(frozen=True, slots=True)
class Run:
    """Where a piece of a file lies: ``start`` in the volume, ``at`` in the file, all in bytes; ``hole``: it has no place."""

    at: int
    start: int
    length: int
    hole: bool


class _Image(pytsk3.Img_Info):  # type: ignore[misc]  # a class of a C module without types
    """What TSK reads. A failure is kept: TSK tells only that reading failed."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self.problem: LanfreeError | None = None
        super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

    def read(self, offset: int, length: int) -> bytes:
        """TSK reads whole 64 KiB also at the end, where there is less."""
        try:
            return self._region.pread(offset, length)
        except LanfreeError as error:
            self.problem = error
            return b""

    def get_size(self) -> int:
        """Bytes."""
        return self._region.size

    def close(self) -> None:
        """The disk is closed by whoever opened it."""


class TskVolume:
    """One file system. Raises ``MountFailed`` when TSK cannot open it, and from every call what reading the disk raises.

    ``kind``: ``ext``, ``ntfs``, ``fat`` or ``exfat``. ``root``: the root directory's inode.
    """

    def __init__(self, region: Region, device: str, kind: str) -> None:
        self.kind = kind
        self._device = device
        self._image = _Image(region)
        with self._explained("its file system"):
            self._fs = pytsk3.FS_Info(self._image, offset=0, type=_KINDS[kind])
        info = self._fs.info
        self.root = int(info.root_inum)
        self.block = int(info.block_size)
        self.last_inode = int(info.last_inum)

    def children(self, inode: int) -> list[Child]:
        """Names of a directory that exist, without ``.`` and ``..``, in TSK's order."""
        found: list[Child] = []
        with self._explained(f"directory {inode}"):
            for file in self._fs.open_dir(inode=inode):
                info = file.info
                name = info.name
                text = name.name
                if text in (b".", b"..") or not int(name.flags) & _ALLOCATED or int(name.type) in _VIRTUAL:
                    continue
                meta = info.meta
                if meta is None:
                    found.append(Child(text, int(name.meta_addr), False, 0, 0, 0))
                    continue
                mtime = int(meta.mtime) * 1_000_000_000 + int(meta.mtime_nano)
                directory = int(meta.type) == _DIRECTORY
                found.append(Child(text, int(name.meta_addr), directory, int(meta.size), mtime, int(meta.mode)))
        self._check(f"directory {inode}")
        return found

    def size(self, inode: int) -> int:
        """Bytes of a file or directory."""
        with self._explained(f"file {inode}"):
            return int(self._fs.open_meta(inode=inode).info.meta.size)

    def content(self, inode: int, offset: int, length: int, kind: int | None = None, number: int = 0) -> bytes:
        """Bytes of a file (``kind``: of another attribute, ``number`` its id), less at the end; holes are zeroes."""
        with self._explained(f"file {inode}"):
            file = self._fs.open_meta(inode=inode)
            length = min(length, self._size(file, kind, number) - offset)
            if length <= 0:
                return b""
            data: bytes = (
                file.read_random(offset, length) if kind is None else file.read_random(offset, length, kind, number)
            )
        self._check(f"file {inode}")
        if len(data) != length:
            raise MountFailed(f"volume {self._device}", f"file {inode}: {len(data)} of {length} bytes at {offset}")
        return data

    def pieces(self, inode: int, offset: int, piece: int) -> Iterator[bytes]:
        """A file's bytes from ``offset`` to its end; the file is opened once."""
        with self._explained(f"file {inode}"):
            file = self._fs.open_meta(inode=inode)
            size = int(file.info.meta.size)
        while offset < size:
            length = min(piece, size - offset)
            with self._explained(f"file {inode}"):
                data: bytes = file.read_random(offset, length)
            self._check(f"file {inode}")
            if len(data) != length:
                raise MountFailed(f"volume {self._device}", f"file {inode}: {len(data)} of {length} bytes at {offset}")
            yield data
            offset += length

    def runs(self, inode: int, kind: int | None = None, named: bytes = b"") -> list[Run]:
        """Where the content lies: of NTFS files the unnamed ``$DATA`` (or the attribute of type ``kind`` that is called so),
        else TSK's default. Empty for resident content."""
        wanted = kind or (_NTFS_DATA if self.kind == "ntfs" else _DEFAULT)
        found: list[Run] = []
        with self._explained(f"file {inode}"):
            for attribute in self._fs.open_meta(inode=inode):
                info = attribute.info
                if int(info.type) != wanted or (self.kind == "ntfs" and (info.name or b"") != named):
                    continue
                if not int(info.flags) & _RESIDENT:
                    found += [
                        Run(
                            int(r.offset) * self.block,
                            int(r.addr) * self.block,
                            int(r.len) * self.block,
                            bool(int(r.flags) & _HOLE),
                        )
                        for r in attribute
                    ]
        self._check(f"file {inode}")
        return found

    def attributes(self, inode: int) -> list[tuple[int, int, bytes, int]]:
        """(type, id, name, size) of each attribute of an NTFS file, those in extension records as well."""
        with self._explained(f"file {inode}"):
            each = [a.info for a in self._fs.open_meta(inode=inode)]
            found = [(int(i.type), int(i.id), i.name or b"", int(i.size)) for i in each]
        self._check(f"file {inode}")
        return found

    def _size(self, file: Any, kind: int | None, number: int) -> int:
        if kind is None:
            return int(file.info.meta.size)
        for attribute in file:
            info = attribute.info
            if int(info.type) == kind and number == int(info.id):
                return int(info.size)
        return 0

    def _check(self, what: str) -> None:
        """TSK takes unreadable places for the end of things at times; a disk that could not be read is always told."""
        problem, self._image.problem = self._image.problem, None
        if problem is not None:
            raise (
                problem
                if isinstance(problem, MountFailed)
                else MountFailed(f"volume {self._device}", f"{what}: {problem}")
            )

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
            self._check(what)
            said = str(error).splitlines()
            raise MountFailed(
                f"volume {self._device}", f"{what}: {said[0] if said else type(error).__name__}"
            ) from None
