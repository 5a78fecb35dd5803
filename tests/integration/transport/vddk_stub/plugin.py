"""Runs inside nbdkit (``nbdkit python``) where its vddk plugin is not to be had (Debian does not build it): takes the same
parameters and makes the same calls of libvixDiskLib, as nbdkit-vddk-plugin(1) and VMware's programming guide describe them.

This file is executed by nbdkit as its main module and is never imported.
"""

import ctypes
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_long, c_uint32, c_uint64, c_void_p
from pathlib import Path

API_VERSION = 2
SECTOR = 512
CHUNK = 128

given: dict[str, str] = {}
library: ctypes.CDLL


class Parameters(ctypes.Structure):
    """VixDiskLibConnectParams with a user's credentials."""

    _fields_ = (
        ("vmx", c_char_p),
        ("server", c_char_p),
        ("thumbprint", c_char_p),
        ("reserved1", c_long),
        ("credentials", c_int),
        ("user", c_char_p),
        ("password", c_char_p),
        ("key", c_void_p),
        ("port", c_uint32),
        ("nfc_port", c_uint32),
        ("reserved3", c_char_p),
        ("reserved4", c_char * 8),
        ("reserved5", c_void_p),
        ("object", c_char_p * 3),
        ("spec", c_int),
    )


class Info(ctypes.Structure):
    """VixDiskLibInfo, up to what is asked for."""

    _fields_ = (("geometry", c_uint32 * 6), ("capacity", c_uint64))


def dump_plugin() -> None:
    print("vddk_default_libdir=/usr/lib64/vmware-vix-disklib")


def config(key: str, value: str) -> None:
    given[key] = value


def config_complete() -> None:
    global library  # noqa: PLW0603  nbdkit's callbacks share nothing but the module
    found = sorted((Path(given["libdir"]) / "lib64").glob("libvixDiskLib.so*"))
    library = ctypes.CDLL(str(found[0]))
    library.VixDiskLib_GetErrorText.restype = c_char_p
    library.VixDiskLib_AllocateConnectParams.restype = POINTER(Parameters)
    for name in ("InitEx", "ConnectEx", "Open", "GetInfo", "Read", "QueryAllocatedBlocks"):
        getattr(library, f"VixDiskLib_{name}").restype = c_uint64


def checked(what: str, error: int) -> None:
    if error:
        raise RuntimeError(f"{what}: {library.VixDiskLib_GetErrorText(c_uint64(error), None).decode()}")


def password() -> bytes:
    """``+FILE``: its first line."""
    return Path(given["password"].removeprefix("+")).read_bytes().split(b"\n")[0]


def open(readonly: int) -> dict[str, c_void_p]:  # noqa: A001  nbdkit's name
    checked(
        "InitEx", library.VixDiskLib_InitEx(c_uint32(6), c_uint32(5), None, None, None, given["libdir"].encode(), None)
    )
    parameters = library.VixDiskLib_AllocateConnectParams()
    parameters.contents.vmx = given["vm"].encode()
    parameters.contents.server = given["server"].encode()
    parameters.contents.user, parameters.contents.password = given["user"].encode(), password()
    parameters.contents.thumbprint = given["thumbprint"].encode()
    parameters.contents.port = int(given["port"])
    parameters.contents.credentials = 1
    connection, handle = c_void_p(), c_void_p()
    snapshot, modes = given["snapshot"].encode(), given["transports"].encode()
    connect = library.VixDiskLib_ConnectEx
    checked("ConnectEx", connect(parameters, c_char(bytes([readonly])), snapshot, modes, byref(connection)))
    checked("Open", library.VixDiskLib_Open(connection, given["file"].encode(), c_uint32(4), byref(handle)))
    return {"connection": connection, "handle": handle}


def close(opened: dict[str, c_void_p]) -> None:
    library.VixDiskLib_Close(opened["handle"])
    library.VixDiskLib_Disconnect(opened["connection"])


def get_size(opened: dict[str, c_void_p]) -> int:
    info = POINTER(Info)()
    checked("GetInfo", library.VixDiskLib_GetInfo(opened["handle"], byref(info)))
    size = int(info.contents.capacity) * SECTOR
    library.VixDiskLib_FreeInfo(info)
    return size


def block_size(opened: dict[str, c_void_p]) -> tuple[int, int, int]:
    return (SECTOR, 4096, 0xFFFFFFFF)


def pread(opened: dict[str, c_void_p], buffer: bytearray, offset: int, flags: int) -> None:
    whole = (ctypes.c_ubyte * len(buffer)).from_buffer(buffer)
    sectors = len(buffer) // SECTOR
    checked("Read", library.VixDiskLib_Read(opened["handle"], c_uint64(offset // SECTOR), c_uint64(sectors), whole))


def can_extents(opened: dict[str, c_void_p]) -> bool:
    return True


def extents(opened: dict[str, c_void_p], count: int, offset: int, flags: int) -> list[tuple[int, int, int]]:
    """Allocated chunks are data; holes between them read as zero. What does not fill a chunk at the end is data."""
    size = get_size(opened)
    start = offset // SECTOR // CHUNK * CHUNK
    end = min(offset + count, size) // SECTOR // CHUNK * CHUNK
    found: list[tuple[int, int, int]] = []
    for at in range(start, end, CHUNK):
        told = POINTER(c_uint32)()
        query = library.VixDiskLib_QueryAllocatedBlocks
        checked("Query", query(opened["handle"], c_uint64(at), c_uint64(CHUNK), c_uint64(CHUNK), byref(told)))
        found.append((at * SECTOR, CHUNK * SECTOR, 0 if told[0] else 3))
        library.VixDiskLib_FreeBlockList(told)
    if end * SECTOR < min(offset + count, size):
        found.append((end * SECTOR, size - end * SECTOR, 0))
    return found
