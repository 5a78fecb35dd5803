"""Every object store against the contract of the ``ObjectStore`` port."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.errors import ConfigurationError, FormatError, LanfreeError, ObjectRetained
from proxy.ports import ObjectStore
from proxy.repository import MemoryStore, PosixStore
from proxy.repository.stores.s3 import S3Store
from proxy.repository.stores.s3_settings import LockMode
from tests.integration.repository.immutability import immutability_helper
from tests.integration.repository.s3_server import S3Server, program, s3_server

# Seconds: retention of the shortest kind that a store with full seconds can keep, and some more until it is surely over.
SHORT = 2.0
OVER = 15.0

Start = Callable[[], S3Server]
Maker = Callable[[Path, Start, ExitStack], ObjectStore]


@pytest.fixture(scope="module")
def start_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """The S3 server, started when the first test asks for it."""
    with ExitStack() as running:
        started: list[S3Server] = []

        def start() -> S3Server:
            if not started:
                started.append(running.enter_context(s3_server(tmp_path_factory.mktemp("s3"))))
                started[0].bucket("plain")
                started[0].bucket("locked", locked=True)
            return started[0]

        yield start


def posix(directory: Path, _start: Start, _stack: ExitStack) -> ObjectStore:
    return PosixStore(directory)


def immutable(directory: Path, _start: Start, stack: ExitStack) -> ObjectStore:
    root = directory / "root"
    root.mkdir()
    helper = stack.enter_context(immutability_helper(directory / "helper", root, minimum=SHORT))
    return PosixStore(root, retainer=helper.client())


class TickingClock:
    """Twenty looks at it are a second, so that no test waits for a store that has no clock of its own."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=0.05)
        return self._now


def memory(_directory: Path, _start: Start, _stack: ExitStack) -> ObjectStore:
    return MemoryStore(clock=TickingClock())


def s3(_directory: Path, start: Start, stack: ExitStack) -> ObjectStore:
    server = start()
    store = S3Store(server.settings("plain", prefix=secrets.token_hex(8)))
    stack.callback(store.close)
    return store


def s3_locked(_directory: Path, start: Start, stack: ExitStack) -> ObjectStore:
    server = start()
    store = S3Store(server.settings("locked", prefix=secrets.token_hex(8), lock=LockMode.COMPLIANCE))
    stack.callback(store.close)
    return store


TOOLS = (pytest.mark.tools, pytest.mark.requires(program()))
PLAIN = [pytest.param(posix, id="posix"), pytest.param(s3, id="s3", marks=TOOLS)]
RETAINING = [
    pytest.param(memory, id="memory"),
    pytest.param(immutable, id="posix-immutable", marks=[pytest.mark.tools, pytest.mark.requires("root")]),
    pytest.param(s3_locked, id="s3-locked", marks=TOOLS),
]


@pytest.fixture(params=PLAIN + RETAINING)
def store(request: pytest.FixtureRequest, tmp_path: Path, start_s3: Start) -> Iterator[ObjectStore]:
    """Each store. Those that can retain objects and those that cannot by ``@pytest.mark.parametrize(..., indirect=True)``."""
    maker: Maker = request.param
    with ExitStack() as stack:
        yield maker(tmp_path, start_s3, stack)


def test_what_was_put_is_there_whole_and_in_parts(store: ObjectStore) -> None:
    store.put("packs/00/one", b"0123456789")
    assert store.get("packs/00/one") == b"0123456789"
    assert store.get("packs/00/one", 3) == b"3456789"
    assert store.get("packs/00/one", 3, 4) == b"3456"
    assert store.get("packs/00/one", 10, 0) == b""
    assert store.size("packs/00/one") == 10


def test_a_view_can_be_put_and_changed_afterwards(store: ObjectStore) -> None:
    buffer = bytearray(b"before")
    store.put("view", memoryview(buffer)[1:4])
    buffer[:] = b"after!"
    assert store.get("view") == b"efo"


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.size("empty") == 0
    assert list(store.list("")) == ["empty"]


def test_a_new_object_never_replaces_another(store: ObjectStore) -> None:
    store.put("name", b"first")
    with pytest.raises(FileExistsError):
        store.put("name", b"second")
    assert store.get("name") == b"first"


def test_an_object_can_be_replaced_on_purpose(store: ObjectStore) -> None:
    store.put("name", b"first", new=False)
    store.put("name", b"second", new=False)
    assert store.get("name") == b"second"
    assert list(store.list("")) == ["name"]


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.get("nothing")
    with pytest.raises(FileNotFoundError):
        store.get("no/such/folder", 0, 1)
    with pytest.raises(FileNotFoundError):
        store.size("nothing")


@pytest.mark.parametrize(("offset", "length"), [(0, 6), (4, 2), (9, 1)])
def test_a_read_behind_the_end_is_an_error_and_never_short(store: ObjectStore, offset: int, length: int) -> None:
    store.put("short", b"12345")
    with pytest.raises(FormatError):
        store.get("short", offset, length)


def test_deleted_is_gone_and_deleting_nothing_is_fine(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    with pytest.raises(FileNotFoundError):
        store.get("a/b")
    assert list(store.list("")) == []
    store.put("a/b", b"again")
    assert store.get("a/b") == b"again"


def test_a_listing_is_complete_sorted_and_by_prefix(store: ObjectStore) -> None:
    names = [
        "config",
        "packs/00/a",
        "packs/00-x",
        "packs/00.y",
        "packs/0a/b",
        "points/m/1",
        "points/m/2",
        "points/mm/1",
    ]
    for name in reversed(names):
        store.put(name, b"")
    assert list(store.list("")) == sorted(names)
    assert list(store.list("packs/")) == sorted(n for n in names if n.startswith("packs/"))
    assert list(store.list("packs/00")) == ["packs/00-x", "packs/00.y", "packs/00/a"]
    assert list(store.list("points/m/")) == ["points/m/1", "points/m/2"]
    assert list(store.list("points/m")) == ["points/m/1", "points/m/2", "points/mm/1"]
    assert list(store.list("none/")) == []
    assert list(store.list("config/")) == []


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".tmp/x", "a\0b", "a b", "x" * 300]
)
def test_a_name_cannot_lead_out_of_the_store(store: ObjectStore, name: str) -> None:
    with pytest.raises(LanfreeError):
        store.put(name, b"")
    with pytest.raises(LanfreeError):
        store.get(name)
    with pytest.raises(LanfreeError):
        store.size(name)
    with pytest.raises(LanfreeError):
        store.delete(name)
    with pytest.raises(LanfreeError):
        store.local_path(name)


def test_of_many_who_put_one_name_one_succeeds(store: ObjectStore) -> None:
    outcomes: list[int | None] = []
    start = threading.Barrier(8)

    def put(number: int) -> None:
        start.wait()
        try:
            store.put("race/name", bytes([number]) * 10000)
        except FileExistsError:
            outcomes.append(None)
        else:
            outcomes.append(number)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [n for n in outcomes if n is not None]
    assert len(outcomes) == 8
    assert len(winners) == 1
    assert store.get("race/name") == bytes([winners[0]]) * 10000


def test_a_local_path_holds_the_same_bytes(store: ObjectStore) -> None:
    store.put("a/local", b"bytes")
    path = store.local_path("a/local")
    assert path is None or path.read_bytes() == store.get("a/local")


@pytest.mark.slow
def test_an_age_is_measured_from_the_last_put(store: ObjectStore) -> None:
    store.put("leases/one", b"1", new=False)
    deadline = time.monotonic() + OVER
    while store.age("leases/one") < 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    old = store.age("leases/one")
    assert 1 <= old < OVER
    store.put("leases/one", b"2", new=False)
    assert 0 <= store.age("leases/one") < old
    with pytest.raises(FileNotFoundError):
        store.age("leases/none")


@pytest.mark.parametrize("store", PLAIN, indirect=True)
def test_a_store_that_cannot_retain_says_so(store: ObjectStore) -> None:
    store.put("packs/00/one", b"bytes")
    assert not store.can_retain
    with pytest.raises(ConfigurationError, match="retention"):
        store.retain("packs/00/one", datetime.now(UTC) + timedelta(seconds=SHORT))


@pytest.mark.slow
@pytest.mark.parametrize("store", RETAINING, indirect=True)
def test_a_retained_object_is_neither_deleted_nor_replaced_until_its_time_is_over(store: ObjectStore) -> None:
    assert store.can_retain
    store.put("packs/00/one", b"bytes")
    store.retain("packs/00/one", datetime.now(UTC) + timedelta(seconds=SHORT))
    with pytest.raises(ObjectRetained) as kept:
        store.delete("packs/00/one")
    assert kept.value.until is not None
    assert abs(kept.value.until - datetime.now(UTC)) < timedelta(seconds=SHORT + 5)
    with pytest.raises(ObjectRetained):
        store.put("packs/00/one", b"other", new=False)
    with pytest.raises(FileExistsError):
        store.put("packs/00/one", b"other")
    assert store.get("packs/00/one") == b"bytes"
    assert list(store.list("")) == ["packs/00/one"]
    delete_once_it_may_be(store, "packs/00/one")
    assert list(store.list("")) == []
    store.put("packs/00/one", b"anew")
    assert store.get("packs/00/one") == b"anew"


@pytest.mark.slow
@pytest.mark.parametrize("store", RETAINING, indirect=True)
def test_a_retention_is_extended_and_never_shortened(store: ObjectStore) -> None:
    store.put("indexes/00/one", b"bytes")
    for seconds in (SHORT, 2 * SHORT, SHORT, -3600):
        store.retain("indexes/00/one", datetime.now(UTC) + timedelta(seconds=seconds))
    # Stores that count in full seconds may be wrong by one at each end.
    assert delete_once_it_may_be(store, "indexes/00/one") >= 2 * SHORT - 1.5
    with pytest.raises(FileNotFoundError):
        store.retain("indexes/00/none", datetime.now(UTC) + timedelta(seconds=SHORT))


@pytest.mark.parametrize("store", RETAINING, indirect=True)
def test_a_retention_that_only_a_wrong_clock_can_mean_is_refused(store: ObjectStore) -> None:
    store.put("points/m/p", b"bytes")
    with pytest.raises(ConfigurationError, match="further away"):
        store.retain("points/m/p", datetime.now(UTC) + timedelta(days=40_000))
    store.delete("points/m/p")
    assert list(store.list("points/")) == []


@pytest.mark.parametrize("store", RETAINING, indirect=True)
def test_of_many_who_retain_one_object_at_once_the_longest_time_counts(store: ObjectStore) -> None:
    store.put("packs/00/one", b"bytes")
    now = datetime.now(UTC)
    for begin in range(1, 40, 8):
        start = threading.Barrier(8)

        def retain(days: int, start: threading.Barrier = start) -> None:
            start.wait()
            store.retain("packs/00/one", now + timedelta(days=days))

        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(retain, range(begin, begin + 8)):
                pass  # an error is raised here
    with pytest.raises(ObjectRetained) as kept:
        store.delete("packs/00/one")
    assert kept.value.until is not None
    assert abs(kept.value.until - now - timedelta(days=40)) < timedelta(minutes=5)


def delete_once_it_may_be(store: ObjectStore, name: str) -> float:
    """The object's age by the store's clock shortly before it let go."""
    deadline = time.monotonic() + OVER
    while True:
        age = store.age(name)
        try:
            store.delete(name)
        except ObjectRetained:
            assert time.monotonic() < deadline, "its time is long over"
            time.sleep(0.02)
        else:
            return age
