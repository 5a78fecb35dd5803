"""Places that no longer hold their chunk, recorded so that nobody deduplicates against them for ever.

One object a place, ``damaged/<pack>/<offset>`` or ``damaged/<pack>/whole``; its name says everything, so any number of
processes may add, listing is one request, and there is nothing in it that could itself be damaged.
"""

import threading
from collections.abc import Mapping
from contextlib import suppress

from proxy.errors import RepositoryFull, RepositoryUnavailable
from proxy.ports import ObjectStore
from proxy.repository.format import NAME_BYTES
from proxy.repository.packs import Place

PREFIX = "damaged/"
_WHOLE = "whole"
_OFFSET_DIGITS = 8

# Each mark is a durable write: a pack that lost more than these is not used at all any more (storing the rest of 32 MiB
# again costs less than thousands of writes).
MARKS_A_PACK = 32


class DamagedPlaces:
    """What is known to be bad. All methods may be called from any thread; ``place in damaged`` costs no lock."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._names: frozenset[str] = frozenset()
        self._unsaved: set[str] = set()
        self._offsets: dict[bytes, frozenset[int]] = {}
        self._packs: frozenset[bytes] = frozenset()

    def __contains__(self, place: Place) -> bool:
        return place.pack in self._packs or place.offset in self._offsets.get(place.pack, ())

    def packs(self) -> frozenset[bytes]:
        """Packs that are damaged as a whole."""
        return self._packs

    def offsets(self) -> Mapping[bytes, frozenset[int]]:
        """Pack -> where in it chunks are damaged."""
        return self._offsets

    def refresh(self) -> None:
        """Learn what others have found, or found to be right again."""
        with self._lock:
            self._learn(frozenset(self._store.list(PREFIX)) | self._unsaved)

    def add(self, pack: bytes, offset: int | None, why: str) -> None:
        """Record that a chunk of a pack, or the whole pack (``None``), is bad. ``why`` is for people who look into the
        store. A store that takes nothing more costs the record, not the caller's work: this process knows it anyway."""
        name = f"{PREFIX}{pack.hex()}/{_WHOLE if offset is None else f'{offset:0{_OFFSET_DIGITS}x}'}"
        with self._lock:
            if name in self._names:
                return
            self._unsaved.add(name)
            self._learn(self._names | {name})
            with suppress(RepositoryFull, RepositoryUnavailable):
                with suppress(FileExistsError):
                    self._store.put(name, why.encode())
                self._unsaved.discard(name)

    def add_chunks(self, pack: bytes, bad: Mapping[int, str]) -> None:
        """Record damaged chunks of a pack: offset -> why. Many of them count as the whole pack."""
        if len(bad) > MARKS_A_PACK:
            self.add(pack, None, f"{len(bad)} chunks are damaged")
            return
        for offset, why in bad.items():
            self.add(pack, offset, why)

    def forget(self, pack: bytes) -> None:
        """The pack was read and is right: what was seen came from a device or a cable that was repaired."""
        with self._lock:
            right = {name for name in self._names if name.startswith(f"{PREFIX}{pack.hex()}/")}
            if right:
                with suppress(RepositoryFull, RepositoryUnavailable):
                    for name in right:
                        self._store.delete(name)
                self._unsaved -= right
                self._learn(self._names - right)

    def _learn(self, names: frozenset[str]) -> None:
        """Names that this version does not understand are left alone."""
        packs: set[bytes] = set()
        offsets: dict[bytes, set[int]] = {}
        for name in names:
            folder, _, what = name.removeprefix(PREFIX).partition("/")
            with suppress(ValueError):
                pack = bytes.fromhex(folder)
                if len(pack) == NAME_BYTES and what == _WHOLE:
                    packs.add(pack)
                elif len(pack) == NAME_BYTES and len(what) == _OFFSET_DIGITS:
                    offset = int(what, 16)
                    offsets.setdefault(pack, set()).add(offset)
        self._names = names
        self._packs = frozenset(packs)
        self._offsets = {pack: frozenset(places) for pack, places in offsets.items()}
