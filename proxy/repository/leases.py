"""Leases: who is at work, told to collectors through the store. No lock: a dead process keeps nothing for ever.

Two objects: ``leases/<kind>-<hex>`` is put once, so its age is how long ago the lease began; ``….alive`` is put
again and again by a thread. A lease counts as long as the younger of the two is younger than ``EXPIRY``.

Only the store's clock is asked (``ObjectStore.age``); clocks of proxies are never compared. What a proxy itself needs to
know, "does everybody still count on me?", is asked without any clock: **whoever takes a lease for expired deletes its
first object before he acts on it**, so a lease whose first object is there is held. A proxy that was suspended for a day
learns at ``confirm`` that it is not any more, whatever its own clocks say.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from proxy.errors import FormatError, LanfreeError, LeaseLost
from proxy.ports import ObjectStore
from proxy.repository import documents
from proxy.repository.dooms import Boxes

PREFIX = "leases/"
MAGIC = b"LANFLEAS"
_ALIVE = ".alive"

# Six renewals an hour cost a store nothing. Rarer would make a collector wait longer for a collector that was killed.
RENEW = 600.0

# How long a killed writer holds up the deletion of what was doomed while it lived. A day: any outage of the store that is
# shorter than this fails no run, and space that comes back a day later troubles nobody. Never below a few RENEW.
EXPIRY = 24 * 3600.0

COLLECT = "collect"
"""The kind that holds up no doom: collectors count on nothing that is doomed."""

READ = "restore"
"""The kind of those that read a restore point; the holder's detail names it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease says of its holder, for people."""

    kind: str
    host: str
    process: int
    detail: str


@dataclass(frozen=True, slots=True)
class LivingLease:
    """``age``: seconds since it began; ``quiet``: since it was last renewed; both by the store's clock.
    ``holder`` is ``None`` for one that cannot be read, which counts like any other."""

    name: str
    kind: str
    age: float
    quiet: float
    holder: Holder | None

    def __str__(self) -> str:
        who = "unknown" if self.holder is None else f"process {self.holder.process} on {self.holder.host}"
        detail = f" ({self.holder.detail})" if self.holder and self.holder.detail else ""
        return f"{self.name.removeprefix(PREFIX)} of {who}{detail}"


class Lease:
    """A lease that this process holds. Methods may be called from any thread."""

    def __init__(self, name: str, store: ObjectStore, content: bytes, renew: float) -> None:
        self.name = name
        self._store = store
        self._content = content
        self._renew = renew
        self._lock = threading.Lock()
        self._dropped = threading.Event()
        self._trouble: Exception | None = None
        self._until: float | None = None
        self._thread = threading.Thread(target=self._keep, name=f"renew {name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Cheap; to be called now and then. After a renewal that failed it tries another one: raises what the store says,
        or ``LeaseLost``."""
        if self._trouble is not None:
            self._renew_now()

    def confirm(self) -> None:
        """Ask the store whether everybody still counts on the holder. To be called before (and after) what must not be done
        without the lease. Raises ``LeaseLost``, or what the store says."""
        if self._dropped.is_set():
            raise LeaseLost(self.name, "it was given back")
        try:
            self._store.age(self.name)
        except FileNotFoundError:
            raise LeaseLost(self.name, "somebody found it expired") from None

    def keep_for(self, seconds: float) -> None:
        """Drop it by itself then: nobody may come back for it. By this machine's own clock, which may well be late."""
        self._until = time.monotonic() + seconds

    def drop(self) -> None:
        """Give it back. Twice is allowed. If the store cannot be reached it expires, which costs others time alone."""
        if self._dropped.is_set():
            return
        self._dropped.set()
        with self._lock, suppress(LanfreeError):
            self._store.delete(self.name + _ALIVE)
            self._store.delete(self.name)

    def _keep(self) -> None:
        while not self._dropped.wait(self._renew if self._trouble is None else self._renew / 10):
            if self._until is not None and time.monotonic() >= self._until:
                self.drop()
                return
            try:
                self._renew_now()
            except LeaseLost as error:
                self._trouble = error  # for good: nobody brings a lost lease back
                return
            except Exception as error:  # noqa: BLE001  # whatever it is, the holder is told at the next use
                self._trouble = error

    def _renew_now(self) -> None:
        with self._lock:
            if self._dropped.is_set():
                return
            try:
                self.confirm()
                self._store.put(self.name + _ALIVE, self._content, new=False)
            except LanfreeError as error:
                self._trouble = error
                raise
            self._trouble = None


class Leases:
    """The leases of one repository. ``renew`` and ``expiry`` in seconds; all proxies must agree on ``expiry``."""

    def __init__(self, store: ObjectStore, boxes: Boxes, *, renew: float = RENEW, expiry: float = EXPIRY) -> None:
        if expiry < 3 * renew:
            raise ValueError(f"leases that expire after {expiry} s cannot be renewed every {renew} s")
        self.renew = renew
        self.expiry = expiry
        self._store = store
        self._boxes = boxes

    def take(self, kind: str, detail: str = "") -> Lease:
        """A new lease; it is seen by everybody when this returns. ``kind``: a word; ``detail`` for people, no secret."""
        name = f"{PREFIX}{kind}-{secrets.token_hex(8)}"
        holder = Holder(kind, socket.gethostname(), os.getpid(), detail)
        content = self._boxes.box(MAGIC, name, documents.encode(holder))
        self._store.put(name, content)
        return Lease(name, self._store, content, self.renew)

    @contextmanager
    def held(self, kind: str, detail: str = "") -> Iterator[Lease]:
        """A lease for the length of a ``with`` statement."""
        lease = self.take(kind, detail)
        try:
            yield lease
        finally:
            lease.drop()

    def living(self) -> list[LivingLease]:
        """Leases that count, oldest name first. One of a kind that this version does not know counts too."""
        return [lease for lease in self.present() if lease.quiet < self.expiry]

    def present(self) -> list[LivingLease]:
        """Those too that look expired and were not removed: their holders may yet find themselves held."""
        return list(self._all())

    def remove_expired(self) -> list[str]:
        """Delete the leases that do not count any more; their names. Until this was done nobody may act on their expiry."""
        expired = [lease.name for lease in self._all() if lease.quiet >= self.expiry]
        for name in expired:
            self._store.delete(name)
            self._store.delete(name + _ALIVE)
        return expired

    def _all(self) -> Iterator[LivingLease]:
        listed = set(self._store.list(PREFIX))
        for name in sorted(listed):
            if name.endswith(_ALIVE):
                if name.removesuffix(_ALIVE) not in listed:
                    # Left by a holder that was killed between its two deletions, or that renewed what was taken for expired.
                    self._remove_stray(name)
                continue
            try:
                age = self._store.age(name)
                quiet = age
                if name + _ALIVE in listed:
                    with suppress(FileNotFoundError):
                        quiet = min(age, self._store.age(name + _ALIVE))
                yield LivingLease(name, _kind(name), age, quiet, self._holder(name))
            except FileNotFoundError:
                continue  # given back meanwhile

    def _remove_stray(self, name: str) -> None:
        with suppress(FileNotFoundError):
            if self._store.age(name) >= self.expiry:
                self._store.delete(name)

    def _holder(self, name: str) -> Holder | None:
        try:
            return documents.decode(Holder, name, self._boxes.unbox(MAGIC, name, self._store.get(name)), "a lease")
        except FormatError:
            return None


def _kind(name: str) -> str:
    return name.removeprefix(PREFIX).rpartition("-")[0]
