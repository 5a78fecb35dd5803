"""An object store that is only read: somebody else's repository, whose restore points are copied and which must stay as it is.

What a reader would like to note (a damaged place, its lease) is refused as by a write-protected file system, and readers do
without it. With ``leases`` a reader's lease is put all the same: then the other site's retention and collection wait for it.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from proxy.errors import ConfigurationError, RepositoryUnavailable
from proxy.ports import ObjectStore
from proxy.repository.leases import PREFIX as LEASES


class ReadOnlyStore:
    """Reads pass; whatever changes something raises ``RepositoryUnavailable``, but for leases where these are allowed."""

    can_retain = False

    def __init__(self, store: ObjectStore, *, leases: bool = False) -> None:
        self._store = store
        self._leases = leases

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        self._check(name)
        self._store.put(name, data, new=new)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._store.get(name, offset, length)

    def size(self, name: str) -> int:
        return self._store.size(name)

    def list(self, prefix: str) -> Iterator[str]:
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        self._check(name)
        self._store.delete(name)

    def age(self, name: str) -> float:
        return self._store.age(name)

    def retain(self, name: str, until: datetime) -> None:
        raise ConfigurationError("retention", f"object {name} is of a repository that is only read")

    def local_path(self, name: str) -> Path | None:
        return self._store.local_path(name)

    def _check(self, name: str) -> None:
        if not (self._leases and name.startswith(LEASES)):
            raise RepositoryUnavailable(
                "the repository that is copied from", f"it is only read, and object {name} was to be changed"
            )
