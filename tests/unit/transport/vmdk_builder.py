"""Chains of disks as files in memory: descriptors, flat bases, vmfsSparse and seSparse deltas, with their truth beside them."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.ports import BlockSource
from proxy.transport.memory import MemorySource

GRAIN = {"vmfs": 512, "se": 4096}
SECTOR = 512
Written = Mapping[int, bytes | None]
"""Grain -> its bytes; ``None``: zero (seSparse: in turn "unmapped" and "zero")."""


@dataclass
class Files:
    """A datastore: path -> bytes. ``opened``: everything that ``open`` returned."""

    content: dict[str, bytes] = field(default_factory=dict)
    opened: list[MemorySource] = field(default_factory=list)

    def open(self, path: str) -> BlockSource:
        self.opened.append(MemorySource(self.content[path], identity=path))
        return self.opened[-1]


def descriptor(size: int, kind: str, file: str, *, cid: int = 1, parent: tuple[int, str] | None = None) -> bytes:
    """``parent``: its CID and name."""
    lines = ["# Disk DescriptorFile", "version=1", f"CID={cid:08x}"]
    lines += [f"parentCID={parent[0]:08x}" if parent else "parentCID=ffffffff"]
    lines += [f'createType="{"vmfs" if kind == "VMFS" else kind.lower().replace("sp", "Sp")}"']
    lines += [f'parentFileNameHint="{parent[1]}"'] if parent else []
    lines += ["# Extent description", f'RW {size // SECTOR} {kind} "{file}"', "", "# The Disk Data Base", "#DDB"]
    lines += ['ddb.adapterType = "lsilogic"', 'ddb.virtualHWVersion = "13"', ""]
    return "\n".join(lines).encode()


def vmfs_sparse(size: int, written: Written) -> bytes:
    """A COWD extent with grains of one sector. It cannot say "zero": such grains are stored."""
    sectors = size // SECTOR
    entries = -(-sectors // 4096)
    directory = [0] * entries
    body = bytearray(2048 + (-(-entries * 4 // SECTOR)) * SECTOR)
    tables: dict[int, list[int]] = {}
    for grain, data in sorted(written.items()):
        table = tables.setdefault(grain // 4096, [0] * 4096)
        table[grain % 4096] = len(body) // SECTOR
        body += (data or b"").ljust(SECTOR, b"\0")
    for number, table in tables.items():
        directory[number] = len(body) // SECTOR
        body += struct.pack("<4096I", *table)
    struct.pack_into("<4s7I", body, 0, b"COWD", 1, 3, sectors, 1, 4, entries, len(body) // SECTOR)
    struct.pack_into(f"<{entries}I", body, 2048, *directory)
    return bytes(body)


def se_sparse(size: int, written: Written, *, replay: int = 0) -> bytes:
    """A seSparse extent. Its grains lie in falling order, so that a reader cannot take their number for their place."""
    capacity = size // SECTOR
    entries = -(-capacity // (4096 * 8))
    used = sorted({grain // 4096 for grain in written})
    held = [grain for grain in sorted(written, reverse=True) if written[grain] is not None]
    directory_at, directory_size = 16, max(1, -(-entries * 8 // SECTOR))
    tables_at = -(-(directory_at + directory_size) // 64) * 64
    grains_at = tables_at + 64 * max(1, len(used))
    body = bytearray(grains_at * SECTOR + len(held) * 4096)
    fields = [0] * 26
    fields[:6] = [0xCAFEBABE, 0x0000000200000001, capacity, 8, 64, 0]
    fields[10:16] = [1, 1, 2, 2, 4, 4]
    fields[16:26] = [
        directory_at,
        directory_size,
        tables_at,
        grains_at - tables_at,
        5,
        1,
        6,
        1,
        grains_at,
        len(held) * 8,
    ]
    struct.pack_into("<26Q", body, 0, *fields)
    struct.pack_into("<4Q", body, SECTOR, 0xCAFECAFE, len(used), 1, replay)
    for index, number in enumerate(used):
        struct.pack_into("<Q", body, directory_at * SECTOR + 8 * number, 0x10000000 << 32 | index)
    for grain, data in written.items():
        if data is None:
            entry = (1 + grain % 2) << 60
        else:
            number = held.index(grain)
            entry = 3 << 60 | (number & 0xFFF) << 48 | number >> 12
            at = grains_at * SECTOR + number * 4096
            body[at : at + 4096] = data.ljust(4096, b"\0")
        at = (tables_at + 64 * used.index(grain // 4096)) * SECTOR + 8 * (grain % 4096)
        struct.pack_into("<Q", body, at, entry)
    return bytes(body)


def build_chain(base: bytes, deltas: Sequence[tuple[str, Written]]) -> tuple[Files, str, bytes]:
    """The files, the path of the top descriptor, and what the disk must read as. A delta: ("vmfs" or "se", its grains)."""
    files = Files()
    size = len(base)
    truth = bytearray(base)
    files.content["vm/vm-flat.vmdk"] = base
    files.content["vm/vm.vmdk"] = descriptor(size, "VMFS", "vm-flat.vmdk", cid=0xABC0)
    parent = (0xABC0, "vm.vmdk")
    for number, (kind, written) in enumerate(deltas, start=1):
        extent = vmfs_sparse(size, written) if kind == "vmfs" else se_sparse(size, written)
        file = f"vm-{number:06}-{'delta' if kind == 'vmfs' else 'sesparse'}.vmdk"
        files.content[f"vm/{file}"] = extent
        name = f"vm-{number:06}.vmdk"
        word = "VMFSSPARSE" if kind == "vmfs" else "SESPARSE"
        files.content[f"vm/{name}"] = descriptor(size, word, file, cid=0xABC0 + number, parent=parent)
        parent = (0xABC0 + number, name)
        for grain, data in written.items():
            start = grain * GRAIN[kind]
            filled = (data or b"").ljust(GRAIN[kind], b"\0")
            truth[start : start + GRAIN[kind]] = filled[: size - start]
    return files, f"vm/{parent[1]}", bytes(truth)
