"""Manifests that were read before, kept as they were stored: a listing of ten thousand machines asks the store for new ones.

One file a machine's folder, to which records are only appended::

    | length of the name (4) | length of the object (4) | name | object |  …

Which restore points there are is never asked here, and what is read is checked by its seal and signature as if it came from
the store: a lost, torn or stale file costs time. Verification and audits pass it by.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from struct import Struct

from proxy.units import MiB

_HEAD = Struct("<II")

# Manifests have some KiB (NVRAM: some hundred). Records that claim more are what a crash left; nothing behind them is used.
_LARGEST = 64 * MiB


class ManifestCache:
    """Of one repository, in a local directory that may be lost at any time, shared by processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def known(self, folder: str) -> Mapping[str, bytes]:
        """Object name -> bytes of what was kept of a machine's folder (the name's part between the slashes)."""
        try:
            data = (self._directory / folder).read_bytes()
        except OSError:
            return {}
        found: dict[str, bytes] = {}
        at = 0
        while at + _HEAD.size <= len(data):
            name_length, length = _HEAD.unpack_from(data, at)
            start = at + _HEAD.size + name_length
            at = start + length
            if length > _LARGEST or at > len(data):
                break
            found[data[start - name_length : start].decode(errors="replace")] = data[start:at]
        if at != len(data):
            self.drop(folder)  # a torn record: what would be appended behind it could never be read
        return found

    def keep(self, folder: str, read: Mapping[str, bytes]) -> None:
        """Add what was read from the store. A full or read-only cache costs time later, and nobody an error."""
        records = [
            _HEAD.pack(len(name.encode()), len(data)) + name.encode() + data
            for name, data in read.items()
            if len(data) <= _LARGEST
        ]
        if not records:
            return
        with suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            file = os.open(self._directory / folder, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, b"".join(records))  # one write: appends of two processes do not mix
            finally:
                os.close(file)

    def drop(self, folder: str) -> None:
        """Forget a folder whose file holds more than it should."""
        with suppress(OSError):
            (self._directory / folder).unlink()
