"""Copies between a directory and a bucket of a real S3 server; audit, report and rescue of what is in the bucket."""

import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.repository import rescue
from proxy.repository.checking.audit import audit, heads
from proxy.repository.checking.report import make_report
from proxy.repository.copy import Outcome, Selection, copy_points
from proxy.repository.stores import s3_client
from proxy.repository.stores.s3 import S3Store
from tests.integration.repository.points import back_up, contents
from tests.integration.repository.s3_faults import BROKEN, LOST_ANSWER, SLOW_DOWN, faulty_proxy
from tests.integration.repository.s3_server import S3Server, program, s3_server

pytestmark = [pytest.mark.tools, pytest.mark.requires(program())]

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
OTHER = repositories.KeyFile(bytes(range(1, 33)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.bucket("copies")
        yield running


def fetch(server: S3Server, prefix: str, directory: Path) -> Path:
    """What ``aws s3 sync`` does."""
    client = server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="copies", Prefix=f"{prefix}/"):
        for each in page["Contents"]:
            path = directory / each["Key"].removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file("copies", each["Key"], str(path))
    return directory


def test_points_go_to_a_bucket_over_a_bad_network_and_come_back(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "FIRST_WAIT", 0.02)
    dice = random.Random(11)
    versions = [dice.randbytes(60 * CHUNK + 100)]
    versions.append(versions[0][: 30 * CHUNK] + dice.randbytes(CHUNK) + versions[0][31 * CHUNK :])
    (tmp_path / "root").mkdir()
    prefix = secrets.token_hex(8)
    with (
        repositories.create(
            repositories.PosixStore(tmp_path / "root"), secret=SECRET, chunk_size=CHUNK, cache=tmp_path / "one"
        ) as source,
        faulty_proxy(server.endpoint) as proxy,
    ):
        parent = None
        for number, data in enumerate(versions):
            point = back_up(source, f"run-{number}", data, datetime(2026, 1, 1 + number, tzinfo=UTC), parent)
            parent = point.images[0]
        store = S3Store(server.settings("copies", prefix=prefix, endpoint=proxy.endpoint, patience=30.0))
        bucket = repositories.create(
            store, secret=OTHER, chunk_size=2 * CHUNK, pack_size=64 * 1024, cache=tmp_path / "two"
        )
        proxy.plan = lambda _: dice.choice([SLOW_DOWN, BROKEN, LOST_ANSWER]) if dice.random() < 0.15 else None
        with bucket:
            results = list(copy_points(source, bucket, read_back=True))
            assert [r.outcome for r in results] == [Outcome.COPIED] * 2
            assert results[1].bytes_read == 2 * CHUNK  # one chunk of the bucket's
            assert list(contents(bucket).values()) == versions
            assert list(audit(bucket, heads(bucket))) == []
            total = make_report(bucket).total
            assert (total.points, total.dead, total.unique) == (2, 0, 62 * CHUNK + 100)
            (tmp_path / "back").mkdir()
            with repositories.create(
                repositories.PosixStore(tmp_path / "back"), secret=SECRET, chunk_size=CHUNK, cache=tmp_path / "three"
            ) as back:
                newest = list(copy_points(bucket, back, Selection(newest=1)))
                assert [r.outcome for r in newest] == [Outcome.COPIED]
                assert list(contents(back).values()) == versions[1:]
        store.close()
    directory = fetch(server, prefix, tmp_path / "fetched")
    (tmp_path / "key").write_bytes(bytes(range(1, 33)))
    words = ["--key-file", str(tmp_path / "key"), str(directory), "restore", results[1].point, "vda"]
    assert rescue.main([*words, str(tmp_path / "disk.raw")]) == 0
    assert (tmp_path / "disk.raw").read_bytes() == versions[1]
