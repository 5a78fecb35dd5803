"""The whole repository in a bucket of a real S3 server: over a bad network, with object lock, on a server that is full."""

import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy import command
from proxy import repository as repositories
from proxy.errors import ObjectRetained, RepositoryFull
from proxy.repository.stores import s3_client
from proxy.repository.stores.s3 import S3Store
from proxy.repository.stores.s3_settings import LockMode
from tests.integration.repository.points import back_up, contents
from tests.integration.repository.s3_faults import BROKEN, LOST_ANSWER, LOST_REQUEST, SLOW_DOWN, Fault, faulty_proxy
from tests.integration.repository.s3_server import S3Server, program, s3_server

pytestmark = [pytest.mark.tools, pytest.mark.requires(program())]

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.bucket("plain")
        running.bucket("locked", locked=True)
        yield running


def test_backups_over_a_bad_network_are_whole(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "FIRST_WAIT", 0.02)
    dice = random.Random(5)
    kinds = [SLOW_DOWN, BROKEN, LOST_REQUEST, LOST_ANSWER, Fault(cut=3)]
    versions = [dice.randbytes(40 * CHUNK), dice.randbytes(40 * CHUNK)]
    with faulty_proxy(server.endpoint) as proxy:
        proxy.plan = lambda _: dice.choice(kinds) if dice.random() < 0.2 else None
        settings = server.settings("plain", prefix=secrets.token_hex(8), endpoint=proxy.endpoint, patience=30.0)
        store = S3Store(settings)
        with repositories.create(
            store, secret=SECRET, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "one"
        ) as repository:
            parent = None
            for number, data in enumerate(versions):
                point = back_up(repository, f"run-{number}", data, datetime(2026, 1, 1 + number, tzinfo=UTC), parent)
                parent = point.images[0]
        faults = len(proxy.requests)
        with repositories.open(store, secret=SECRET, cache=tmp_path / "two") as repository:
            assert list(contents(repository).values()) == versions
            assert list(repositories.verify(repository)) == []
        store.close()
    assert faults > 20


def test_a_restore_point_in_a_locked_bucket_cannot_be_taken_away(server: S3Server, tmp_path: Path) -> None:
    settings = server.settings("locked", prefix=secrets.token_hex(8), lock=LockMode.COMPLIANCE)
    store = S3Store(settings, retain_for=timedelta(days=1))
    data = random.Random(6).randbytes(20 * CHUNK)
    with repositories.create(
        store, secret=SECRET, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "one"
    ) as repository:
        first = back_up(repository, "run-1", data, datetime(2026, 1, 1, tzinfo=UTC), None)
        back_up(repository, "run-2", data, datetime(2026, 1, 2, tzinfo=UTC), first.images[0])
        with pytest.raises(ObjectRetained):
            repository.delete(first.id)
        for name in list(store.list("packs/")) + list(store.list("indexes/")):
            with pytest.raises(ObjectRetained):
                store.delete(name)
        assert list(contents(repository).values()) == [data, data]
        assert list(repositories.verify(repository)) == []
    store.close()


@pytest.mark.requires("root")
def test_a_full_server_leaves_the_restore_points_that_were_there(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], timeout=20)
    try:
        with s3_server(small / "s3") as server:
            server.bucket("full")
            store = S3Store(server.settings("full", patience=3.0))
            first = random.Random(7).randbytes(100 * CHUNK)
            with repositories.create(
                store, secret=SECRET, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache"
            ) as repository:
                back_up(repository, "run-1", first, datetime(2026, 1, 1, tzinfo=UTC), None)
                with pytest.raises(RepositoryFull, match="s3://full"):
                    back_up(repository, "run-2", random.Random(8).randbytes(2000 * CHUNK), datetime.now(UTC), None)
                assert list(contents(repository).values()) == [first]
                assert list(repositories.verify(repository)) == []
            store.close()
    finally:
        command.run(["umount", small], timeout=20)
