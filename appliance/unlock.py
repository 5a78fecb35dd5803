"""Keys of encrypted volumes that are kept for machines: one sealed record a machine, opened by the repository's key alone.

Kept in the site's state (``<state>/unlock``, or the database of several proxies), not in the repository: who restores elsewhere
brings the keys along or gives them anew. A record is a box of the repository (FORMAT.md), so it is bound to this repository
and to this machine's name.
"""

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISREG

from blake3 import blake3

from mounter.keys import LARGEST, Key
from mounter.wire import bytes_of, text_of
from proxy.errors import ConfigurationError, FormatError
from proxy.model import MachineId
from proxy.ports import StateStore
from proxy.repository.sealing import Sealer

_MAGIC = b"LFUNLOCK"
_WRITING = "writing"


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key without its secret. ``volume``: device or UUID, empty: tried on every encrypted volume."""

    id: str
    volume: str
    added_at: datetime


class UnlockStore:
    """``sealed``: whether the repository encrypts. In one that does not, nothing is kept: it would lie there in the clear."""

    def __init__(self, state: StateStore, sealer: Sealer, *, sealed: bool) -> None:
        self._state = state
        self._sealer = sealer
        self._sealed = sealed

    def keys(self, machine: MachineId) -> list[Key]:
        """To open the machine's volumes with. Raises ``FormatError`` when the record was damaged or is another repository's."""
        return [key for _, key in self._read(machine)]

    def kept(self, machine: MachineId) -> Sequence[KeptKey]:
        """What is kept, oldest first. Raises as ``keys``."""
        return [facts for facts, _ in self._read(machine)]

    def add(self, machine: MachineId, key: Key, at: datetime) -> KeptKey:
        """Keep one more; on disk when this returns. Raises ``ConfigurationError`` where nothing can be sealed."""
        if not self._sealed:
            raise ConfigurationError(
                "the repository",
                "is not encrypted, so that keys of volumes would be kept in the clear",
                hint="give the key with each command instead, or use an encrypted repository",
            )
        kept = KeptKey(secrets.token_hex(4), key.volume, at)
        with self._state.locked(_WRITING):
            self._write(machine, [*self._read(machine), (kept, key)])
        return kept

    def remove(self, machine: MachineId, name: str) -> bool:
        """Whether there was one with this id. The last one takes the record along."""
        with self._state.locked(_WRITING):
            before = self._read(machine)
            after = [(kept, key) for kept, key in before if kept.id != name]
            if len(after) < len(before):
                self._write(machine, after)
        return len(after) < len(before)

    def _read(self, machine: MachineId) -> list[tuple[KeptKey, Key]]:
        data = self._state.get(_name(machine))
        if data is None:
            return []
        try:
            kept = json.loads(self._sealer.unbox(_MAGIC, f"unlock/{machine}", data))
            return [
                (
                    KeptKey(k["id"], k["volume"], datetime.fromisoformat(k["at"])),
                    Key(k["volume"], bytes_of(k["secret"])),
                )
                for k in kept
            ]
        except (ValueError, KeyError, TypeError):  # without the exception's words: they may quote what was read
            raise FormatError(f"the kept keys of {machine}", "are not what was written") from None

    def _write(self, machine: MachineId, keys: Sequence[tuple[KeptKey, Key]]) -> None:
        if not keys:
            self._state.remove(_name(machine))
            return
        plain = json.dumps(
            [
                {"id": kept.id, "volume": key.volume, "at": kept.added_at.isoformat(), "secret": text_of(key.secret)}
                for kept, key in keys
            ]
        )
        self._state.put(_name(machine), self._sealer.box(_MAGIC, f"unlock/{machine}", plain.encode()))


def _name(machine: MachineId) -> str:
    return f"{blake3(machine.encode()).hexdigest(16)}.sealed"


def keys_in(files: Sequence[Path] | None) -> list[Key]:
    """Keys for one command: each file's content, tried on every encrypted volume. Raises ``ConfigurationError``."""
    return [Key("", secret_of(path)) for path in files or ()]


def secret_of(path: Path) -> bytes:
    """The whole content of a file that only its owner may read. Raises ``ConfigurationError``."""
    try:
        # Whoever waits for a writer of a pipe waits for ever; that it is none is seen once it is open.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not S_ISREG(status.st_mode):
                raise ConfigurationError(str(path), "is not a regular file")
            if status.st_mode & 0o077:
                raise ConfigurationError(str(path), "others than its owner may read it", hint=f"chmod 600 {path}")
            secret = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from None
    if not 0 < len(secret) <= LARGEST:
        raise ConfigurationError(str(path), "is empty, or too long for a key")
    return secret
