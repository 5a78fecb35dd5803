"""The promise of immutability: what a restore point needs stays for a time from its seal, whoever tries to remove it.

Objects are retained by their store (S3 object lock, or the immutable attribute) from the moment they are put. A restore
point also refers to packs that were put long before, and deduplication keeps them in use for years; so sealing extends
what would end too soon. Extending every pack of every point every night would be one request each::

    put             seal of A       seal of B                 seal of C
    |--- span + BLOCK -------------------------|
                    |--- span ----|             B is covered: nothing to do
                                                |--- span + BLOCK ------------|   extended once for the next BLOCK

``BLOCK`` more at each extension makes it one request a pack in ten days.

What was extended is remembered by this machine's dates, and some stores count from their own clock (a directory's helper
counts seconds). A night under a clock that is ahead would therefore leave dates here that no store keeps: those that are
further away than an extension of now reaches are not believed, and the objects are extended again.
"""

import json
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from proxy.ports import Clock, ObjectStore

# Ten days of space that could have been collected earlier, for a tenth of the requests of a nightly backup. A month would
# save little more and keep three times as much.
BLOCK = timedelta(days=10)

# Extensions under way: each is a request of some ten milliseconds to a store across a network.
AT_ONCE = 8


def retain_for(span: timedelta | None) -> timedelta | None:
    """How long a store must retain each object from its put, for a promise of ``span``."""
    return None if span is None else span + BLOCK


class Promise:
    """Keeps one repository's promise of ``span``; ``None``: none was made. ``memory``: a file that may be lost (then packs are
    extended once more than needed). Methods may be called from any thread."""

    def __init__(self, store: ObjectStore, span: timedelta | None, clock: Clock, memory: Path) -> None:
        self._store = store
        self.span = span
        self._clock = clock
        self._memory = memory
        self._until: dict[str, datetime] = {}
        # Seals of many machines end at once and share packs: each pack is to be extended by one of them.
        self._covering = threading.Lock()
        if span is not None:
            with suppress(OSError, ValueError, TypeError, OverflowError, AttributeError):
                kept = json.loads(memory.read_text())
                self._until = {name: datetime.fromtimestamp(until, UTC) for name, until in kept.items()}

    def cover(self, names: Iterable[str]) -> int:
        """Return when all of the objects are retained for the span from now; how many had to be extended. Raises
        ``FileNotFoundError`` and what the store raises: then nothing that needs them must be sealed."""
        if self.span is None:
            return 0
        with self._covering:
            now = self._clock.now()
            first, last = now + self.span, now + self.span + BLOCK
            short = sorted({name for name in names if not first <= self._until.get(name, now) <= last})
            self._extend(short, last)
            self._remember(now)
        return len(short)

    def _extend(self, names: Sequence[str], until: datetime) -> None:
        if not names:
            return

        def extend(name: str) -> None:
            self._store.retain(name, until)
            self._until[name] = until

        with ThreadPoolExecutor(min(AT_ONCE, len(names))) as pool:
            for _ in pool.map(extend, names):
                pass  # the first error is raised here

    def _remember(self, now: datetime) -> None:
        """What is over was collected, or must be extended anyway."""
        kept = {name: until.timestamp() for name, until in sorted(self._until.items()) if until > now}
        draft = self._memory.with_suffix(".new")
        with suppress(OSError):
            draft.write_text(json.dumps(kept))
            draft.replace(self._memory)
