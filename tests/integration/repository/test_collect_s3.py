"""Collection in a bucket of a real S3 server: over a bad network, with retained objects, and two collectors at once."""

import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.model import RestorePoint
from proxy.repository import Repository
from proxy.repository.collection.collect import collect
from proxy.repository.collection.collected import CollectReport
from proxy.repository.stores import s3_client
from proxy.repository.stores.s3 import S3Store
from proxy.repository.stores.s3_settings import LockMode
from tests.integration.repository.points import back_up, contents
from tests.integration.repository.s3_faults import BROKEN, LOST_ANSWER, LOST_REQUEST, SLOW_DOWN, faulty_proxy
from tests.integration.repository.s3_server import S3Server, program, s3_server

pytestmark = [pytest.mark.tools, pytest.mark.requires(program())]

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))

# Ages have whole seconds here: what began up to 2 x SKEW after a doom holds it up.
SECONDS_ARE_WHOLE = 6.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.bucket("plain")
        running.bucket("locked", locked=True)
        yield running


def made(store: S3Store, cache: Path) -> Repository:
    return repositories.create(store, secret=SECRET, chunk_size=CHUNK, pack_size=64 * 1024, cache=cache)


def thinned(repository: Repository) -> tuple[RestorePoint, dict[str, bytes]]:
    """A point to be deleted, and one that needs every fourth of its chunks."""
    data = os.urandom(64 * CHUNK)
    gone = back_up(repository, "one", data, datetime(2026, 1, 1, tzinfo=UTC), None)
    few = b"".join(data[n * CHUNK : (n + 1) * CHUNK] for n in range(0, 64, 4))
    kept = back_up(repository, "two", few, datetime(2026, 1, 2, tzinfo=UTC), None)
    return gone, {kept.id: few}


def collect_now(repository: Repository) -> CollectReport:
    return collect(repository, grace=0, settle=0, young=0, courtesy=False, patience=SECONDS_ARE_WHOLE)


def test_space_comes_back_over_a_bad_network(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "FIRST_WAIT", 0.02)
    dice = random.Random(7)
    kinds = [SLOW_DOWN, BROKEN, LOST_REQUEST, LOST_ANSWER]
    with faulty_proxy(server.endpoint) as proxy:
        settings = server.settings("plain", prefix=secrets.token_hex(8), endpoint=proxy.endpoint, patience=30.0)
        store = S3Store(settings)
        with made(store, tmp_path / "one") as repository:
            gone, expected = thinned(repository)
            repository.delete(gone.id)
            before = sum(store.size(name) for name in store.list("packs/"))
            proxy.plan = lambda _: dice.choice(kinds) if dice.random() < 0.2 else None
            report = collect_now(repository)
            assert report.missing == ()
            assert len(report.compacted) >= 4
            collect_now(repository)
            assert sum(store.size(name) for name in store.list("packs/")) < before / 2
            assert list(store.list("dooms/")) == []
            assert [name for name in store.list("leases/") if "collect" in name] == []
        with repositories.open(store, secret=SECRET, cache=tmp_path / "two") as repository:
            assert contents(repository) == expected
            assert list(repositories.verify(repository)) == []
        assert len(proxy.requests) > 50
        store.close()


def test_what_the_bucket_retains_stays_doomed_until_it_lets_go(server: S3Server, tmp_path: Path) -> None:
    settings = server.settings("locked", prefix=secrets.token_hex(8), lock=LockMode.COMPLIANCE)
    store = S3Store(settings)
    with made(store, tmp_path / "one") as repository:
        gone, expected = thinned(repository)
        repository.delete(gone.id)
        held = next(iter(store.list("packs/")))
        until = time.time() + 8
        store.retain(held, datetime.fromtimestamp(until, UTC))
        collect_now(repository)
        report = collect_now(repository)
        assert held in {item.object for item in report.kept}
        assert held in set(store.list("packs/"))
        assert contents(repository) == expected
        time.sleep(max(until - time.time(), 0))
        deadline = time.monotonic() + 30  # the server's clock and its whole seconds decide, not ours
        while held in set(store.list("packs/")):
            assert time.monotonic() < deadline
            collect_now(repository)
        assert list(store.list("dooms/")) == []
        assert contents(repository) == expected
    store.close()


def test_two_collectors_and_a_writer_at_once_lose_nothing(server: S3Server, tmp_path: Path) -> None:
    settings = server.settings("plain", prefix=secrets.token_hex(8))
    errors: list[BaseException] = []
    with made(S3Store(settings), tmp_path / "one") as repository:
        gone, expected = thinned(repository)
        repository.delete(gone.id)
    parts = next(iter(expected.values()))

    def write(proxy: Repository) -> None:
        for number in range(4):
            data = parts[number * CHUNK :] + os.urandom(4 * CHUNK)
            moment = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(hours=number)
            point = back_up(proxy, f"more-{number}", data, moment, None)
            expected[point.id] = data

    def sweep(proxy: Repository) -> None:
        for _ in range(3):
            collect_now(proxy)

    def work(task: Callable[[Repository], None], name: str) -> None:
        store = S3Store(settings)
        try:
            with repositories.open(store, secret=SECRET, cache=tmp_path / name) as proxy:
                task(proxy)
        except BaseException as error:  # noqa: BLE001  # told below
            errors.append(error)
        finally:
            store.close()

    threads = [
        threading.Thread(target=work, args=(task, name)) for task, name in ((write, "w"), (sweep, "a"), (sweep, "b"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert errors == []
    store = S3Store(settings)
    with repositories.open(store, secret=SECRET, cache=tmp_path / "three") as repository:
        assert contents(repository) == expected
        collect_now(repository)
        assert contents(repository) == expected
        assert list(repositories.verify(repository)) == []
    store.close()
