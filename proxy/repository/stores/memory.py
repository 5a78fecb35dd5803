"""An object store in memory: for tests and try-outs, held to the same contract as the real ones.

``fail_at`` makes the N-th changing call fail, which is how the tests prove that no crash leaves half a restore point.
"""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from proxy.clock import SystemClock
from proxy.errors import ConfigurationError, FormatError, LanfreeError, ObjectRetained, RepositoryFull
from proxy.ports import Clock
from proxy.repository.stores.names import LONGEST_RETENTION, check_name, is_retained


class MemoryStore:
    """A dictionary of objects. ``capacity``: bytes after which ``put`` raises ``RepositoryFull``. ``clock`` is the store's
    own, by which ages and retention are measured. ``retain_for``: as the other stores, for what ``is_retained`` names.
    """

    can_retain: bool

    def __init__(
        self, capacity: int | None = None, *, clock: Clock | None = None, retain_for: timedelta | None = None
    ) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.can_retain = True
        self._clock = clock or SystemClock()
        self._retain_for = retain_for
        self._put_at: dict[str, datetime] = {}
        self._until: dict[str, datetime] = {}
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
            self._refuse_retained(name)
            used = sum(map(len, self.objects.values())) - len(self.objects.get(name, b""))
            if self._capacity is not None and used + len(data) > self._capacity:
                raise RepositoryFull("memory")
            self.objects[name] = bytes(data)
            self._put_at[name] = self._clock.now()
            if self._retain_for is not None and is_retained(name):
                self._until[name] = self._clock.now() + self._retain_for

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
            self._refuse_retained(name)
            self.objects.pop(name, None)
            self._until.pop(name, None)

    def age(self, name: str) -> float:
        self._object(name)
        with self._lock:
            put_at = self._put_at.get(name)  # a test may have laid the object into ``objects`` itself
        return max((self._clock.now() - put_at).total_seconds(), 0.0) if put_at else 0.0

    def retain(self, name: str, until: datetime) -> None:
        self._object(name)
        with self._lock:
            now = self._clock.now()
            if until - now > LONGEST_RETENTION:
                raise ConfigurationError(
                    "retention", f"{until:%Y-%m-%d} is further away than {LONGEST_RETENTION.days} days"
                )
            self._until[name] = max(until, self._until.get(name, now))

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

    def _refuse_retained(self, name: str) -> None:
        until = self._until.get(name)
        if until is not None and until > self._clock.now():
            raise ObjectRetained(name, until)

    def _count(self, call: str) -> None:
        if self._fail_at is not None and len(self.calls) >= self._fail_at:
            raise self._error or RepositoryFull("memory")
        self.calls.append(call)
