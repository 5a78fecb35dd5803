"""Every object store against the contract of the ``ObjectStore`` port."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.errors import FormatError, LanfreeError
from proxy.ports import ObjectStore
from proxy.repository import MemoryStore, PosixStore


def posix(directory: Path) -> ObjectStore:
    return PosixStore(directory)


def memory(_: Path) -> ObjectStore:
    return MemoryStore()


@pytest.fixture(params=[posix, memory], ids=["posix", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    maker: Callable[[Path], ObjectStore] = request.param
    return maker(tmp_path)


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
