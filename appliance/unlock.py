"""Keys of encrypted volumes that this proxy keeps: one sealed file a machine, opened by the repository's key alone.

Kept in ``<state>/unlock``, not in the repository: who restores elsewhere brings the keys along or gives them anew. A file
is a box of the repository (FORMAT.md), so it is bound to this repository and to this machine's name.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISREG

from blake3 import blake3

from mounter.keys import LARGEST, Key
from mounter.wire import bytes_of, text_of
from proxy.durable import replace_durably, sync_directory
from proxy.errors import ConfigurationError, FormatError
from proxy.model import MachineId
from proxy.repository.sealing import Sealer

_MAGIC = b"LFUNLOCK"


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key without its secret. ``volume``: device or UUID, empty: tried on every encrypted volume."""

    id: str
    volume: str
    added_at: datetime


class UnlockStore:
    """``sealed``: whether the repository encrypts. In one that does not, nothing is kept: it would lie there in the clear."""

    def __init__(self, directory: Path, sealer: Sealer, *, sealed: bool) -> None:
        self._directory = directory
        self._sealer = sealer
        self._sealed = sealed

    def keys(self, machine: MachineId) -> list[Key]:
        """To open the machine's volumes with. Raises ``FormatError`` when the file was damaged or is another repository's."""
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
        with self._writing():
            self._write(machine, [*self._read(machine), (kept, key)])
        return kept

    def remove(self, machine: MachineId, name: str) -> bool:
        """Whether there was one with this id. The last one takes the file along."""
        with self._writing():
            before = self._read(machine)
            after = [(kept, key) for kept, key in before if kept.id != name]
            if len(after) < len(before):
                self._write(machine, after)
        return len(after) < len(before)

    def _path(self, machine: MachineId) -> Path:
        return self._directory / f"{blake3(machine.encode()).hexdigest(16)}.sealed"

    def _read(self, machine: MachineId) -> list[tuple[KeptKey, Key]]:
        try:
            data = self._path(machine).read_bytes()
        except FileNotFoundError:
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
        path = self._path(machine)
        if not keys:
            path.unlink(missing_ok=True)
            sync_directory(self._directory)
            return
        plain = json.dumps(
            [
                {"id": kept.id, "volume": key.volume, "at": kept.added_at.isoformat(), "secret": text_of(key.secret)}
                for kept, key in keys
            ]
        )
        replace_durably(path, self._sealer.box(_MAGIC, f"unlock/{machine}", plain.encode()))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One process at a time reads, changes and writes."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def keys_in(files: Sequence[Path] | None) -> list[Key]:
    """Keys for one command: each file's content, tried on every encrypted volume. Raises ``ConfigurationError``."""
    return [Key("", secret_of(path)) for path in files or ()]


def secret_of(path: Path) -> bytes:
    """The whole content of a file that only its owner may read. Raises ``ConfigurationError``."""
    try:
        with path.open("rb") as file:
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
