"""Small records beside a restore point: that it was deleted, that it must be kept, how its last verification went.

All are boxes (``sealing.py``) under the restore point's own two names: ``<prefix>M…/P…``.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from proxy.errors import FormatError, IntegrityError
from proxy.model import RestorePointId
from proxy.ports import ObjectStore
from proxy.repository import documents, manifest
from proxy.repository.sealing import Sealer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A restore point that was deleted on purpose. ``hash``: of its manifest (``manifest.object_hash``), so that chains stay
    provable; ``number`` and ``previous``: its place in the chain; ``why``: the rule or the person's words."""

    point: RestorePointId
    hash: str
    number: int
    previous: RestorePointId | None
    deleted_at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Hold:
    """A restore point that nobody may delete until the hold is taken off."""

    point: RestorePointId
    since: datetime
    why: str


class Health(StrEnum):
    """What the last verification of a restore point said. ``SUSPECT``: every byte is as it was stored, and what was stored may
    not be what the machine had (``Ledger.doubt``)."""

    UNKNOWN = "unknown"
    GOOD = "good"
    SUSPECT = "suspect"
    DAMAGED = "damaged"

    @property
    def trusted(self) -> bool:
        """Whether rules may count on such a restore point."""
        return self not in (Health.SUSPECT, Health.DAMAGED)


@dataclass(frozen=True, slots=True)
class Verification:
    """``coverage``: share of the point's stored bytes that were read, 1.0 for all; ``damaged``: bytes of its disks;
    ``doubt``: why it is suspect, or empty."""

    point: RestorePointId
    health: Health
    verified_at: datetime
    coverage: float = 1.0
    damaged: int = 0
    doubt: str = ""


class Records(Generic[T]):
    """All records of one kind. Any number of processes may use it; ``replace`` decides what a second ``put`` does."""

    def __init__(
        self, store: ObjectStore, sealer: Sealer, prefix: str, magic: bytes, kind: type[T], *, signed: bool
    ) -> None:
        self.prefix = prefix
        self._store = store
        self._sealer = sealer
        self._magic = magic
        self._signed = signed
        self._kind = kind

    def name(self, manifest_name: str) -> str:
        """Object name of the record of the restore point whose manifest has this name."""
        return self.prefix + manifest_name.removeprefix(manifest.PREFIX)

    def put(self, manifest_name: str, record: T, *, new: bool = False) -> None:
        """With ``new`` an existing record raises ``FileExistsError``."""
        name = self.name(manifest_name)
        data = self._sealer.box(self._magic, name, documents.encode(record), sign=self._signed)
        self._store.put(name, data, new=new)

    def get(self, manifest_name: str) -> T | None:
        """Raises ``FormatError`` for one that is damaged."""
        name = self.name(manifest_name)
        try:
            data = self._store.get(name)
        except FileNotFoundError:
            return None
        plain = self._sealer.unbox(self._magic, name, data, signed=self._signed)
        return documents.decode(self._kind, name, plain, "a record of its kind")

    def opens(self, manifest_name: str) -> bool:
        """Whether there is a record that its repository made: whoever can write to the storage can put anything there."""
        try:
            return self.get(manifest_name) is not None
        except (FormatError, IntegrityError):
            return False

    def delete(self, manifest_name: str) -> None:
        self._store.delete(self.name(manifest_name))

    def names(self, folder: str = manifest.PREFIX) -> set[str]:
        """Names of the *manifests* that have a record, of all machines or of one (``manifest.machine_folder``)."""
        listed = self._store.list(self.name(folder))
        return {manifest.PREFIX + name.removeprefix(self.prefix) for name in listed}


def tombstones(store: ObjectStore, sealer: Sealer) -> Records[Tombstone]:
    """Signed, because whoever could forge one could hide a restore point."""
    return Records(store, sealer, "tombstones/", b"LANFTOMB", Tombstone, signed=True)


def holds(store: ObjectStore, sealer: Sealer) -> Records[Hold]:
    """Holds on restore points."""
    return Records(store, sealer, "holds/", b"LANFHOLD", Hold, signed=False)


def verifications(store: ObjectStore, sealer: Sealer) -> Records[Verification]:
    """The last verification of each restore point; replaced by the next."""
    return Records(store, sealer, "states/", b"LANFSTAT", Verification, signed=False)
