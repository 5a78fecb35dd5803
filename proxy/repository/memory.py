"""An object store in memory: for tests and try-outs, held to the same contract as the real ones.

``fail_at`` makes the N-th changing call fail, which is how the tests prove that no crash leaves half a restore point.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

from proxy.errors import FormatError, LanfreeError, RepositoryFull
from proxy.repository.names import check_name


class MemoryStore:
    """A dictionary of objects. ``capacity``: bytes after which ``put`` raises ``RepositoryFull``."""

    def __init__(self, capacity: int | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self._capacity = capacity
        self._lock = threading.Lock()
        self._fail_at: int | None = None
        self._error: LanfreeError | None = None

    def fail_at(self, call: int | None, error: LanfreeError | None = None) -> None:
        """The ``call``-th ``put`` or ``delete`` from now (counting from 0) and all later ones raise ``error``."""
        with self._lock:
            self.calls.clear()
            self._fail_at = call
            self._error = error

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        with self._lock:
            self._count(f"put {check_name(name)}")
            if new and name in self.objects:
                raise FileExistsError(name)
            used = sum(map(len, self.objects.values())) - len(self.objects.get(name, b""))
            if self._capacity is not None and used + len(data) > self._capacity:
                raise RepositoryFull("memory")
            self.objects[name] = bytes(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self._object(name)
        part = data[offset:] if length is None else data[offset : offset + length]
        if length is not None and len(part) != length:
            raise FormatError(name, f"has {len(data)} bytes; {length} at {offset} were asked for")
        return part

    def size(self, name: str) -> int:
        return len(self._object(name))

    def list(self, prefix: str) -> Iterator[str]:
        with self._lock:
            found = sorted(name for name in self.objects if name.startswith(prefix))
        return iter(found)

    def delete(self, name: str) -> None:
        with self._lock:
            self._count(f"delete {check_name(name)}")
            self.objects.pop(name, None)

    def local_path(self, name: str) -> Path | None:
        """Nothing lies in files here."""
        check_name(name)
        return None  # the type checker wants it said

    def _object(self, name: str) -> bytes:
        with self._lock:
            try:
                return self.objects[check_name(name)]
            except KeyError:
                raise FileNotFoundError(name) from None

    def _count(self, call: str) -> None:
        if self._fail_at is not None and len(self.calls) >= self._fail_at:
            raise self._error or RepositoryFull("memory")
        self.calls.append(call)
