"""What the tests of collection share: a clock that is set by hand, collection without waiting, and a scheduler of threads."""

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from proxy.errors import RepositoryUnavailable
from proxy.ports import ObjectStore
from proxy.repository import Repository
from proxy.repository.collection.collect import collect
from proxy.repository.collection.collected import CollectReport

DAY = 24 * 3600.0


class HandClock:
    """Stands still until it is advanced."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


def collect_now(repository: Repository, *, dry_run: bool = False, threshold: float = 0.3) -> CollectReport:
    """As when everything was left alone for days, and seen through."""
    return collect(
        repository,
        dry_run=dry_run,
        threshold=threshold,
        grace=0,
        settle=0,
        young=0,
        courtesy=False,
        pause=lambda _: None,
    )


class Turns:
    """Lets one of several threads go on at a time, for one call of the store, in an order that a seed decides."""

    def __init__(self, seed: int) -> None:
        self._chooser = random.Random(seed)
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._running: set[int] = set()
        self._turn: int | None = None
        self._errors: list[BaseException] = []

    def run(self, works: list[Callable[[], object]], timeout: float = 60) -> None:
        """Run all to their ends; raises the first error of any."""
        threads = [threading.Thread(target=self._work, args=(number, work)) for number, work in enumerate(works)]
        self._running = set(range(len(works)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
            assert not thread.is_alive()
        if self._errors:
            raise self._errors[0]

    def step(self) -> None:
        """Called before each call of the store: waits for the caller's turn."""
        me = getattr(_local, "number", None)
        if me is None:
            return
        with self._changed:
            self._waiting.add(me)
            self._choose()
            self._changed.wait_for(lambda: self._turn == me)
            self._turn = None
            self._waiting.discard(me)

    def _work(self, number: int, work: Callable[[], object]) -> None:
        _local.number = number
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # told by run
            self._errors.append(error)
        finally:
            with self._changed:
                self._running.discard(number)
                self._choose()

    def _choose(self) -> None:
        """When all that run wait for a turn."""
        if self._turn is None and self._waiting and self._waiting == self._running:
            self._turn = self._chooser.choice(sorted(self._waiting))
            self._changed.notify_all()


_local = threading.local()


class TurnStore:
    """A store whose every call is one turn. After ``dies_after`` calls nothing comes through any more, as if the process that
    uses it had been killed."""

    can_retain = False

    def __init__(self, store: ObjectStore, turns: Turns, *, dies_after: int | None = None) -> None:
        self._store = store
        self._turns = turns
        self._left = dies_after

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        self._step()
        self._store.put(name, data, new=new)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._step()
        return self._store.get(name, offset, length)

    def size(self, name: str) -> int:
        self._step()
        return self._store.size(name)

    def list(self, prefix: str) -> Iterator[str]:
        self._step()
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        self._step()
        self._store.delete(name)

    def age(self, name: str) -> float:
        self._step()
        return self._store.age(name)

    def _step(self) -> None:
        self._turns.step()
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise RepositoryUnavailable("a test", "the process was killed")

    def retain(self, name: str, until: datetime) -> None:
        self._store.retain(name, until)

    def local_path(self, name: str) -> Path | None:
        return self._store.local_path(name)
