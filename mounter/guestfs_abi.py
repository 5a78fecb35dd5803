"""The calls of libguestfs that carry file names, with names as bytes. C ABI: guestfs(3), guestfs_lstatnslist and others.

Memory that the library returns is ours to free. Errors are raised as ``OSError`` with the library's own words, and its
errno where it knows one (0 otherwise).
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# struct guestfs_statns: 22 int64: dev ino mode nlink uid gid rdev size blksize blocks atime atime_ns mtime mtime_ns
# ctime ctime_ns and six spare ones.
_FIELDS = 22
_INODE, _MODE, _LINKS, _UID, _GID, _DEVICE, _SIZE, _BLOCKS = 1, 2, 3, 4, 5, 6, 7, 9
_MTIME, _MTIME_NS, _CTIME, _CTIME_NS = 12, 13, 14, 15
_NANO = 10**9

# st_blocks counts in these, whatever the file system's blocks are: stat(2).
_SECTOR = 512


class _StatList(ctypes.Structure):
    """struct guestfs_statns_list."""

    _fields_ = (("len", ctypes.c_uint32), ("val", ctypes.POINTER(ctypes.c_int64 * _FIELDS)))


class _Xattr(ctypes.Structure):
    """struct guestfs_xattr."""

    _fields_ = (("name", ctypes.c_char_p), ("length", ctypes.c_uint32), ("value", ctypes.POINTER(ctypes.c_char)))


class _XattrList(ctypes.Structure):
    """struct guestfs_xattr_list."""

    _fields_ = (("len", ctypes.c_uint32), ("val", ctypes.POINTER(_Xattr)))


@dataclass(frozen=True, slots=True)
class Stat:
    """What lstat(2) says. Times in nanoseconds, ``mode`` with the type bits."""

    inode: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    links: int = 1
    allocated: int = -1
    device: tuple[int, int] = (0, 0)


class Names:
    """Bound to one handle. ``capsule``: the Python binding's ``guestfs_h`` (its attribute ``_o``)."""

    def __init__(self, capsule: object) -> None:
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype = ctypes.c_void_p
        pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
        self._handle = ctypes.c_void_p(pointer(capsule, b"guestfs_h"))
        names = ctypes.POINTER(ctypes.c_char_p)
        lib = self._lib = ctypes.CDLL("libguestfs.so.0")
        _declare(lib.guestfs_lstatnslist, ctypes.POINTER(_StatList), ctypes.c_char_p, names)
        _declare(lib.guestfs_free_statns_list, None)
        lib.guestfs_free_statns_list.argtypes = (ctypes.POINTER(_StatList),)
        _declare(lib.guestfs_readlinklist, ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p, names)
        _declare(lib.guestfs_ls, ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p)
        _declare(
            lib.guestfs_pread,
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_int64,
            ctypes.POINTER(ctypes.c_size_t),
        )
        _declare(lib.guestfs_lgetxattrs, ctypes.POINTER(_XattrList), ctypes.c_char_p)
        _declare(lib.guestfs_free_xattr_list, None)
        lib.guestfs_free_xattr_list.argtypes = (ctypes.POINTER(_XattrList),)
        _declare(
            lib.guestfs_cryptsetup_open_argv,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_void_p,
        )
        _declare(lib.guestfs_last_error, ctypes.c_char_p)
        _declare(lib.guestfs_last_errno, ctypes.c_int)
        self._free = ctypes.CDLL(None).free
        self._free.argtypes = (ctypes.c_void_p,)
        self._free.restype = None

    def stats(self, directory: bytes, names: Sequence[bytes]) -> list[Stat | None]:
        """lstat of names in one directory; ``None`` for those that cannot be read."""
        answer = self._lib.guestfs_lstatnslist(self._handle, directory, _array(names))
        if not answer:
            raise self._error(directory)
        try:
            found = answer.contents
            return [_stat(found.val[i]) for i in range(found.len)]
        finally:
            self._lib.guestfs_free_statns_list(answer)

    def links(self, directory: bytes, names: Sequence[bytes]) -> list[bytes]:
        """Targets of symbolic links in one directory; empty for those that cannot be read."""
        return self._strings(self._lib.guestfs_readlinklist(self._handle, directory, _array(names)), directory)

    def names(self, directory: bytes) -> list[bytes]:
        """What a directory holds, without ``.`` and ``..``."""
        return self._strings(self._lib.guestfs_ls(self._handle, directory), directory)

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of a file itself, not of what a link names."""
        answer = self._lib.guestfs_lgetxattrs(self._handle, path)
        if not answer:
            raise self._error(path)
        try:
            found = answer.contents
            each = (found.val[i] for i in range(found.len))
            return {x.name: ctypes.string_at(x.value, x.length) for x in each}
        finally:
            self._lib.guestfs_free_xattr_list(answer)

    def pread(self, path: bytes, count: int, offset: int) -> bytes:
        """At most ``count`` bytes (the library's limit is just below 4 MiB); empty at the end of the file."""
        size = ctypes.c_size_t()
        answer = self._lib.guestfs_pread(self._handle, path, count, offset, ctypes.byref(size))
        if not answer:
            raise self._error(path)
        try:
            return ctypes.string_at(answer, size.value)
        finally:
            self._free(answer)

    def unlock(self, device: str, secret: bytes, name: str) -> None:
        """Open an encrypted device as ``/dev/mapper/name``; the library finds out of which kind it is. No NUL in ``secret``.

        Writable: what lies in it may have a log to replay, which goes to the session's overlay."""
        if self._lib.guestfs_cryptsetup_open_argv(self._handle, device.encode(), secret, name.encode(), None) == -1:
            raise self._error(device.encode())

    def _strings(self, answer: "ctypes._Pointer[ctypes.c_void_p]", path: bytes) -> list[bytes]:
        if not answer:
            raise self._error(path)
        found: list[bytes] = []
        while address := answer[len(found)]:
            found.append(ctypes.string_at(address))
        for i in range(len(found)):
            self._free(answer[i])
        self._free(answer)
        return found

    def _error(self, path: bytes) -> OSError:
        said: bytes = self._lib.guestfs_last_error(self._handle) or b"no message"
        return OSError(self._lib.guestfs_last_errno(self._handle), said.decode(errors="replace"), path)


def _declare(function: Any, result: object, *arguments: object) -> None:
    """Type a function of the library; its first argument is the handle. ``Any``: there is no word for "a ctypes type"."""
    function.restype = result
    function.argtypes = (ctypes.c_void_p, *arguments)


def _array(names: Sequence[bytes]) -> "ctypes.Array[ctypes.c_char_p]":
    return (ctypes.c_char_p * (len(names) + 1))(*names, None)


def _stat(v: Sequence[int]) -> Stat | None:
    if v[_INODE] == -1:
        return None
    mtime, ctime = v[_MTIME] * _NANO + v[_MTIME_NS], v[_CTIME] * _NANO + v[_CTIME_NS]
    device = os.major(v[_DEVICE]), os.minor(v[_DEVICE])
    return Stat(v[_INODE], v[_MODE], v[_UID], v[_GID], v[_SIZE], mtime, ctime, v[_LINKS], v[_BLOCKS] * _SECTOR, device)
