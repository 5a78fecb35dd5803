"""Links and special files in NTFS, shown as ntfs-3g shows them: reparse points, and the files of Interix.

Junctions and absolute links name a drive. What lies on this volume becomes an absolute path in it, the rest stands below
``/.NTFS-3G/`` as ntfs-3g has it (it may be another volume of the guest). Tags that it has no plug-in for are told as
links to "unsupported reparse tag 0x...": the content is elsewhere (WOF compression, deduplication, cloud files).
Layout: Microsoft's [MS-FSCC] 2.1.2, "Reparse Point Data Structures".
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from mounter.ports import FileType

_MOUNT_POINT = 0xA0000003
_SYMLINK = 0xA000000C
_WSL_LINK = 0xA000001D
_WSL = {
    0x80000023: FileType.SOCKET,
    0x80000024: FileType.FIFO,
    0x80000025: FileType.CHARACTER_DEVICE,
    0x80000026: FileType.BLOCK_DEVICE,
}
_RELATIVE = 1

_LINK = b"IntxLNK\x01"
_DEVICES = {b"IntxCHR\x00": FileType.CHARACTER_DEVICE, b"IntxBLK\x00": FileType.BLOCK_DEVICE}

Resolve = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Special:
    """What a file is instead of a regular one."""

    type: FileType
    target: bytes | None = None
    device: tuple[int, int] = (0, 0)


def reparse(data: bytes, path: bytes, resolve: Resolve) -> Special:
    """``data``: the whole attribute; ``path``: of the file in its volume; ``resolve``: ``Ntfs.resolve``."""
    if len(data) < 8:
        return _unsupported(0)
    (tag,) = struct.unpack_from("<I", data)
    body = data[8:]
    if tag in _WSL:
        return Special(_WSL[tag])
    if tag == _WSL_LINK and len(body) > 4:
        return Special(FileType.SYMLINK, body[4:])
    target: bytes | None = None
    if tag == _MOUNT_POINT and len(body) >= 8:
        target = _absolute(_named(body, 8), resolve)
    elif tag == _SYMLINK and len(body) >= 12:
        (flags,) = struct.unpack_from("<I", body, 8)
        name = _named(body, 12)
        target = _relative(name, path, resolve) if flags & _RELATIVE else _absolute(name, resolve)
    return Special(FileType.SYMLINK, target) if target else _unsupported(tag)


def interix(data: bytes) -> Special | None:
    """What a system file with this content is; ``None``: a system file."""
    if len(data) > 8 and data[:8] == _LINK:
        return Special(FileType.SYMLINK, data[8:].decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass"))
    if len(data) == 0:
        return Special(FileType.FIFO)
    if len(data) == 1:
        return Special(FileType.SOCKET)
    if len(data) == 24 and data[:8] in _DEVICES:
        major, minor = struct.unpack_from("<QQ", data, 8)
        return Special(_DEVICES[data[:8]], None, (major & 0xFFFFFFFF, minor & 0xFFFFFFFF))
    return None


def _named(body: bytes, names: int) -> bytes:
    """The substitute name, in UTF-8, with backslashes."""
    start, length = struct.unpack_from("<HH", body)
    raw = body[names + start : names + start + (length & ~1)]
    return raw.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def _absolute(name: bytes, resolve: Resolve) -> bytes | None:
    for prefix in (b"\\??\\", b"\\\\?\\"):
        name = name.removeprefix(prefix)
    slashed = name.replace(b"\\", b"/")
    if name[:7] == b"Volume{":
        return b"/.NTFS-3G/" + slashed.rstrip(b"/")
    if len(name) < 3 or name[1:3] != b":\\":
        return None
    found = resolve(slashed[2:])
    return found if found is not None else b"/.NTFS-3G/" + slashed.rstrip(b"/")


def _relative(name: bytes, path: bytes, resolve: Resolve) -> bytes | None:
    """In the spelling of the volume; ``None`` when it leads nowhere."""
    parts = name.replace(b"\\", b"/").split(b"/")
    here = path.split(b"/")[1:-1]
    up = 0
    while parts and parts[0] in (b".", b".."):
        if parts.pop(0) == b"..":
            if not here:
                return None
            here.pop()
            up += 1
    base = b"/".join([b"", *here])
    found = resolve(b"/".join([base, *parts]))
    if found is None:
        return None
    inside = found[len(base) :].lstrip(b"/")
    return b"../" * up + inside if inside else (b"../" * up).rstrip(b"/") or None


def _unsupported(tag: int) -> Special:
    return Special(FileType.SYMLINK, b"unsupported reparse tag 0x%08x" % tag)
