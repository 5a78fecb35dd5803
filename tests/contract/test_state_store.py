"""Every store of small records that proxies share is held to this."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from proxy.ports import StateStore
from proxy.state_directory import StateDirectory
from tests.conftest import must_have


@pytest.fixture(params=["directory", pytest.param("postgresql", marks=pytest.mark.tools)])
def opened(request, tmp_path) -> Iterator[Callable[[], StateStore]]:
    """Opens the same store once more, as another process would."""
    if request.param == "directory":
        yield lambda: StateDirectory(tmp_path / "state")
        return
    from catalog.jobs.store import JobStore  # noqa: PLC0415  # the fast suite need not wait for it

    server = request.getfixturevalue("postgres")
    name = server.database()
    with ExitStack() as stack:
        stack.callback(server.drop, name)
        yield lambda: stack.enter_context(JobStore(server.url(name))).shared


@pytest.fixture(scope="module")
def postgres() -> Iterator[object]:
    from tests.integration.catalog.postgres_server import postgres_server, program  # noqa: PLC0415

    if program() is None:
        must_have("postgres")
    with postgres_server() as server:
        yield server


def test_a_record_comes_back_as_it_was_for_everybody(opened):
    opened().put("runs/a.json", b"\x00one")
    assert opened().get("runs/a.json") == b"\x00one"
    opened().put("runs/a.json", b"")
    assert opened().get("runs/a.json") == b""


def test_what_is_not_there_is_none_and_can_be_removed(opened):
    store = opened()
    assert store.get("runs/a") is None and store.names("runs") == []
    store.remove("runs/a")
    store.put("runs/a", b"x")
    store.remove("runs/a")
    assert store.get("runs/a") is None and store.names("runs") == []


def test_names_are_those_of_one_folder_in_order(opened):
    store = opened()
    for name in ("runs/b", "runs/a", "runs/deep/c", "runsome/d", "runs_e"):
        store.put(name, b"")
    assert store.names("runs") == ["a", "b"]


def test_a_folder_is_a_store_of_its_own(opened):
    store = opened()
    store.folder("kvm").folder("h1").put("runs/a", b"1")
    assert store.get("kvm/h1/runs/a") == b"1"
    assert store.folder("kvm").names("h1/runs") == ["a"]
    assert store.folder("vsphere").get("h1/runs/a") is None


@pytest.mark.parametrize("name", ["", "../x", "/x", "a//b", "a/../b", "a b", "a\n", ".x", "a/", "x.new", "x.lock", "ä"])
def test_names_that_could_mean_something_else_are_refused(name, opened):
    store = opened()
    with pytest.raises(ValueError, match="no name"):
        store.put(name, b"")
    with pytest.raises(ValueError, match="no name"):
        store.get(name)


def test_one_at_a_time_holds_a_lock(opened):
    inside, most, done = 0, 0, []

    def work() -> None:
        nonlocal inside, most
        store = opened()
        for _ in range(20):
            with store.locked("reserve"):
                inside += 1
                most = max(most, inside)
                count = int(store.get("count") or b"0")
                store.put("count", b"%d" % (count + 1))
                inside -= 1
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4 and most == 1
    assert opened().get("count") == b"80"


def test_as_many_as_hold_locks_can_use_records_too(opened):
    store, many = opened(), 32  # more than the connections that transactions have
    all_hold_one, one_at_a_time = threading.Barrier(many, timeout=120), threading.Lock()

    def work(number: int) -> None:
        with store.locked(f"one-{number}"):
            all_hold_one.wait()
            with one_at_a_time:
                store.put(f"runs/{number:02d}", b"x")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.names("runs")) == many


def test_a_lock_says_nothing_of_records(opened):
    store = opened()
    with store.locked("installation"):
        store.put("installation", b"x")
    assert store.names("runs") == [] and store.get("installation") == b"x"
