"""What a machine's volumes say about it, read inside the appliance: what ``mountpoints`` needs of them.

libguestfs' own inspection is not used: it fails as a whole when one logical volume of a machine cannot be activated, and
lists all devices anew with programs of a second each. So both readers tell the same, from the same code.

``g`` is the handle of the appliance (``libguestfs.py``, the only importer of ``guestfs``).
"""

from collections.abc import Mapping
from typing import Any

from mounter.containers import said
from mounter.entries import type_of
from mounter.guestfs_abi import Names
from mounter.ports import FileType


class MountedFiles:
    """``mountpoints.Files`` over what is mounted. ``places``: device -> directory in the appliance; ``folding``: devices
    whose file systems find names in any letter case."""

    def __init__(self, g: Any, raw: Names, places: Mapping[str, bytes], folding: frozenset[str]) -> None:
        self._g = g
        self._raw = raw
        self._places = places
        self._folding = folding

    def type(self, device: str, path: str) -> FileType | None:
        """Of the entry itself; ``None`` if there is none."""
        parent, _, name = self._full(device, path).rpartition(b"/")
        try:
            stat = self._raw.stats(parent or b"/", [name])[0]
        except OSError:
            return None
        return None if stat is None else type_of(stat)

    def read(self, device: str, path: str, offset: int, length: int) -> bytes:
        """Bytes of a regular file; none if it is not there."""
        pieces: list[bytes] = []
        while length > 0:
            try:
                piece = self._raw.pread(self._full(device, path), min(length, 1 << 20), offset)
            except OSError:
                break
            if not piece:
                break
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)

    def link(self, device: str, path: str) -> str:
        """Target of a symbolic link."""
        parent, _, name = self._full(device, path).rpartition(b"/")
        return self._raw.links(parent or b"/", [name])[0].decode(errors="surrogateescape")

    def _full(self, device: str, path: str) -> bytes:
        full = self._places[device] + path.rstrip("/").encode(errors="surrogateescape")
        if device in self._folding:
            found: str = said(self._g.case_sensitive_path, "", full.decode(errors="surrogateescape"))
            return found.encode(errors="surrogateescape") or full
        return full
