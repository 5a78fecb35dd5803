"""Dooms: which packs and indexes shall be deleted, said before it is done, so that writers stop counting on them.

One object a batch, ``dooms/<16 hex>``, a box of JSON. **A pack that was doomed once is never undoomed**: what is needed of
it again is copied into another pack first. Only so may any number of collectors work on the same dooms: each counts only
on packs that nobody has doomed, and so none counts on a pack that another one is just deleting.
"""

import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from proxy.errors import FormatError
from proxy.ports import ObjectStore
from proxy.repository import documents
from proxy.repository import format as layout

PREFIX = "dooms/"
MAGIC = b"LANFDOOM"

# Names in one record: some 350 KiB of JSON. A collector that is killed loses at most one record's work.
BATCH = 10_000


class Boxes(Protocol):
    """What small objects are sealed with: ``Sealer`` (``sealing.py``)."""

    def box(self, magic: bytes, name: str, plain: bytes, *, sign: bool = False) -> bytes:
        """The object's bytes."""
        ...

    def unbox(self, magic: bytes, name: str, data: bytes, *, signed: bool = False) -> bytes:
        """What was put in. Raises ``FormatError``."""
        ...


@dataclass(frozen=True, slots=True)
class Doom:
    """Object names of packs and indexes that nobody needs, or that were rewritten. ``made_at`` is for people: nothing is
    decided by the clock of the proxy that made it."""

    packs: tuple[str, ...]
    indexes: tuple[str, ...]
    made_at: datetime


class Dooms:
    """All dooms of a repository, as of the last ``refresh``. Methods may be called from any thread."""

    def __init__(self, store: ObjectStore, boxes: Boxes) -> None:
        self._store = store
        self._boxes = boxes
        self._lock = threading.Lock()
        self._known: dict[str, Doom] = {}
        self._packs: frozenset[bytes] = frozenset()

    @property
    def packs(self) -> frozenset[bytes]:
        """Packs that nobody may count on any more."""
        return self._packs

    @property
    def known(self) -> dict[str, Doom]:
        """Name of the record -> what it dooms."""
        return dict(self._known)

    def indexes(self) -> frozenset[str]:
        """Object names of the indexes that are doomed."""
        return frozenset(name for doom in self._known.values() for name in doom.indexes)

    def refresh(self) -> None:
        """Learn what others have doomed, and what is done with. Reads new records only. Raises ``FormatError`` for one
        that cannot be read: what it dooms is not known, so nobody may count on any pack."""
        with self._lock:
            listed = set(self._store.list(PREFIX))
            known = {name: doom for name, doom in self._known.items() if name in listed}
            for name in sorted(listed - known.keys()):
                with suppress(FileNotFoundError):  # done with, a moment ago: its packs are gone
                    known[name] = self._read(name)
            self._learn(known)

    def add(self, packs: Sequence[str], indexes: Sequence[str], now: datetime) -> list[str]:
        """Doom objects, by their names. Names of the records, oldest first; durable when this returns."""
        made: list[str] = []
        for start in range(0, max(len(packs), len(indexes)), BATCH):
            doom = Doom(tuple(packs[start : start + BATCH]), tuple(indexes[start : start + BATCH]), now)
            name = f"{PREFIX}{secrets.token_hex(8)}"
            self._store.put(name, self._boxes.box(MAGIC, name, documents.encode(doom)))
            with self._lock:
                self._learn({**self._known, name: doom})
            made.append(name)
        return made

    def remove(self, name: str) -> None:
        """All that the record doomed is gone, or was spared."""
        self._store.delete(name)
        with self._lock:
            self._learn({known: doom for known, doom in self._known.items() if known != name})

    def remove_unreadable(self, age: float) -> list[str]:
        """Delete records that cannot be read and are older than ``age`` seconds; their names. They would keep everybody from
        writing, and nobody can carry them out; there must be no other collector that read them before."""
        removed: list[str] = []
        for name in self._store.list(PREFIX):
            with suppress(FileNotFoundError):
                try:
                    self._read(name)
                except FormatError:
                    if self._store.age(name) >= age:
                        self._store.delete(name)
                        removed.append(name)
        return removed

    def _read(self, name: str) -> Doom:
        plain = self._boxes.unbox(MAGIC, name, self._store.get(name))
        return documents.decode(Doom, name, plain, "what is doomed")

    def _learn(self, known: dict[str, Doom]) -> None:
        packs = (layout.pack_of(name) for doom in known.values() for name in doom.packs)
        self._known = known
        self._packs = frozenset(pack for pack in packs if pack is not None)
