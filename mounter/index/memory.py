"""What an index run remembers for the next one: a file for each machine, a cache that may be deleted at any time.

The file is a digest, then zstd over numpy's own archive (no pickles in it): facts in JSON, and for each volume its tree in
columns.
"""

import glob
import hashlib
import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from mounter.index.incremental import VolumeMemory
from mounter.layout.model import MOST_NODES, Node, Tree
from mounter.ports import FileType
from proxy.units import GiB

# Seconds: nothing is written for so long; a run of another process may just be writing its own.
STALE = 3600.0

# Raised whenever what is kept, or what it means, changes: older files are then of no use.
VERSION = 1

_TYPES = list(FileType)
_LARGEST = 4 * GiB
_DIGEST = 32


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one restore point. ``images``: disk -> digest of its image, so that a memory is never used for other bytes."""

    point: str
    images: Mapping[str, str]
    volumes: Mapping[str, VolumeMemory]


def save(path: Path, memory: Memory) -> None:
    """Replaces the file at once, or leaves it as it was. Raises ``OSError``."""
    volumes = list(memory.volumes.items())
    facts = {
        "version": VERSION,
        "point": memory.point,
        "images": dict(memory.images),
        "volumes": [
            {
                "id": name,
                "kind": v.kind,
                "place": v.place,
                "prefix": v.prefix.hex(),
                "fingerprint": v.fingerprint.hex(),
                "full_bytes": v.full_bytes,
                "root": v.tree.root,
            }
            for name, v in volumes
        ],
    }
    arrays: dict[str, NDArray[Any]] = {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)}
    for number, (_, volume) in enumerate(volumes):
        arrays.update({f"{number}/{name}": column for name, column in _columns(volume.tree)})
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stubs take the names for options
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.name)}*.new"):  # of a run that was killed here
        if time.time() - left.stat().st_mtime > STALE:
            left.unlink(missing_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
    try:
        with os.fdopen(descriptor, "wb") as file:
            data = zstandard.ZstdCompressor(level=1).compress(buffer.getbuffer())
            file.write(_digest(data) + data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path) -> Memory | None:
    """``None`` when there is none, or one that cannot be used: of another version, cut off, damaged."""
    try:
        whole = path.read_bytes()
        if _digest(whole[_DIGEST:]) != whole[:_DIGEST]:
            return None
        data = zstandard.ZstdDecompressor().decompress(whole[_DIGEST:], max_output_size=_LARGEST)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            facts = json.loads(archive["facts"].tobytes())
            if facts["version"] != VERSION:
                return None
            volumes = {
                given["id"]: VolumeMemory(
                    given["kind"],
                    given["place"],
                    bytes.fromhex(given["prefix"]),
                    bytes.fromhex(given["fingerprint"]),
                    given["full_bytes"],
                    _tree(given["root"], archive, f"{number}/"),
                )
                for number, given in enumerate(facts["volumes"])
            }
            return Memory(facts["point"], facts["images"], volumes)
    except (OSError, EOFError, KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile, zstandard.ZstdError):
        return None


def _digest(data: bytes) -> bytes:
    """A memory with a wrong byte would make a wrong index: it is no memory."""
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def _columns(tree: Tree) -> Iterator[tuple[str, NDArray[Any]]]:
    """A tree as arrays; integers of 64 bits."""
    rows = [(n, _TYPES.index(d.type), *d[1:7], d.ask, -1 if d.link_target is None else len(d.link_target))
            for n, d in tree.nodes.items()]  # fmt: skip
    yield "nodes", np.array(rows, dtype=np.int64).reshape(-1, 10)
    yield "links", _text(d.link_target for d in tree.nodes.values() if d.link_target is not None)
    entries = [(n, child, len(name)) for n, held in tree.children.items() for name, child in held.items()]
    yield "directories", np.array(list(tree.children), dtype=np.int64)
    yield "entries", np.array(entries, dtype=np.int64).reshape(-1, 3)
    yield "names", _text(name for held in tree.children.values() for name in held)
    for name, column in tree.extra.items():
        yield f"extra/{name}", column


def _text(pieces: Iterator[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(pieces), dtype=np.uint8)


def _tree(root: int, archive: Mapping[str, NDArray[Any]], prefix: str) -> Tree:
    links, at = archive[f"{prefix}links"].tobytes(), 0
    nodes: dict[int, Node] = {}
    for number, kind, size, mode, uid, gid, mtime, ctime, ask, length in archive[f"{prefix}nodes"].tolist():
        target = None
        if length >= 0:
            target, at = links[at : at + length], at + length
        nodes[number] = Node(_TYPES[kind], size, mode, uid, gid, mtime, ctime, target, bool(ask))
    names, at = archive[f"{prefix}names"].tobytes(), 0
    children: dict[int, dict[bytes, int]] = {number: {} for number in archive[f"{prefix}directories"].tolist()}
    for directory, child, length in archive[f"{prefix}entries"].tolist():
        children[directory][names[at : at + length]] = child
        at += length
    if root not in children or len(nodes) > 2 * MOST_NODES:
        raise ValueError("no tree")
    start = len(prefix) + len("extra/")
    extra = {name[start:]: archive[name] for name in archive if name.startswith(f"{prefix}extra/")}
    return Tree(root, nodes, children, extra)
