"""Whether packs hold what they say: every byte is read and checked, several packs at once."""

import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from proxy.errors import FormatError, IntegrityError
from proxy.repository import format as layout
from proxy.repository import packs
from proxy.repository.damaged import DamagedPlaces
from proxy.repository.format import CLEAR, PACK_TRAILER, SEAL_BYTES, Entry
from proxy.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Verdict:
    """``why``: trouble of the pack as a whole; ``bad``: offset in the pack -> trouble of one chunk; ``size``: bytes read;
    ``deep``: every chunk was compared with its id."""

    why: str = ""
    bad: dict[int, str] = field(default_factory=dict)
    missing: bool = False
    size: int = 0
    deep: bool = False

    @property
    def right(self) -> bool:
        """Whether every byte of the pack is as it was written; if ``deep``, also as it should have been written."""
        return not self.why and not self.bad


class PackChecker:
    """Reads packs of one repository, ``workers`` at a time (each has a pack in memory), and records what is damaged.

    What is recorded as damaged is read deeply whatever was asked: less could not prove that it is right after all."""

    def __init__(self, repository: Repository, workers: int, *, deep: bool) -> None:
        """``deep``: see ``verify``."""
        self._repository = repository
        self.deep = deep
        self._workers = workers
        self._local = threading.local()

    def check_all(self, wanted: Sequence[bytes]) -> Generator[tuple[bytes, Verdict], None, None]:
        """Verdicts in the order of the packs. Closing the iterator ends the work; a pack that is being read is finished."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="verify") as pool:
            ahead: list[tuple[bytes, Future[Verdict]]] = []
            try:
                for pack in (*wanted, *[None] * self._workers):
                    if pack is not None:
                        ahead.append((pack, pool.submit(self._check, pack)))
                    if ahead and (pack is None or len(ahead) > self._workers):
                        name, future = ahead.pop(0)
                        verdict = future.result()
                        _record(self._repository.lookup.damaged, name, verdict)
                        yield name, verdict
            finally:
                pool.shutdown(cancel_futures=True)

    def _check(self, pack: bytes) -> Verdict:
        name = layout.pack_name(pack)
        settings, chunker = self._repository.settings, self._repository.chunker
        try:
            data = memoryview(self._repository.store.get(name))
        except FileNotFoundError:
            return Verdict(f"object {name} is missing", missing=True)
        except (FormatError, IntegrityError) as error:
            return Verdict(error.message)
        try:
            offset = packs.parse_trailer(name, data[-PACK_TRAILER.size :], len(data)).offset
            entries = packs.check_footer(pack, data[offset:], len(data), settings, chunker)
        except FormatError as error:
            return Verdict(error.message, size=len(data))
        frame = ""
        try:
            packs.check_frame(pack, data, settings, chunker)
        except FormatError as error:
            frame = error.message
        # The digest of a pack in the clear covers its chunks: what they read as follows from their bytes.
        deep = self.deep or self._is_suspect(pack)
        bad = {} if not (frame or deep or settings.sealed) else self._bad(data, entries, deep)
        return Verdict("" if bad else frame, bad, size=len(data), deep=deep)

    def _is_suspect(self, pack: bytes) -> bool:
        known = self._repository.lookup.damaged
        return pack in known.packs() or pack in known.offsets()

    def _bad(self, data: memoryview, entries: Sequence[Entry], deep: bool) -> dict[int, str]:
        """Offset -> what is wrong with the chunk there."""
        room = self._room()
        chunker = self._repository.chunker
        bad: dict[int, str] = {}
        for e in entries:
            stored = data[e.offset : e.offset + e.stored]
            generation = layout.split_codec(e.codec)[0]
            try:
                if deep or generation == CLEAR or not self._repository.settings.sealed:
                    chunker.restore_into(e.id, e.codec, stored, room[: e.raw])
                else:
                    chunker.keys.unseal_chunk(e.id, generation, stored, room[: e.stored - SEAL_BYTES])
            except FormatError as error:
                bad[e.offset] = error.message
        return bad

    def _room(self) -> memoryview:
        """Memory of this thread for one chunk."""
        try:
            found: memoryview = self._local.room
        except AttributeError:
            found = self._local.room = memoryview(bytearray(self._repository.granularity))
        return found


def _record(damaged: DamagedPlaces, pack: bytes, verdict: Verdict) -> None:
    if verdict.missing:
        return  # the lookup sees that by itself, and a pack that comes back is as good as before
    if verdict.right:
        if verdict.deep:  # a chunk may have been wrong before it was sealed: then its seal fits for ever
            damaged.forget(pack)
    elif verdict.why:
        damaged.add(pack, None, verdict.why)
    else:
        damaged.add_chunks(pack, verdict.bad)
