"""The product on a bucket with object lock: the same commands, a machine's files opened straight from S3."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.wiring import Services
from mounter.export import Export, ImageToExport
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.units import MiB
from tests.integration.repository.s3_server import S3Server, program, s3_server

pytestmark = [pytest.mark.tools, pytest.mark.requires(program(), "nbdkit", "nbdcopy")]

DISK = os.urandom(3 * MiB) + bytes(5 * MiB)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.bucket("backup", locked=True)
        yield running


@pytest.fixture
def path(server: S3Server, tmp_path: Path) -> Path:
    """A configuration on the bucket, with a copy in a directory."""
    file = tmp_path / "lanfree.toml"
    file.write_text(
        f"""
        [repository]
        key_file = "{tmp_path}/repository.key"
        immutable_days = 1
        [repository.s3]
        bucket = "backup"
        prefix = "{tmp_path.name}"
        endpoint = "{server.endpoint}"
        credentials_file = "{server.credentials}"
        lock = "governance"
        [[copy_to]]
        name = "disk"
        path = "{tmp_path}/copy"
        key_file = "{tmp_path}/copy.key"
        [retention]
        last = 1
        [state]
        directory = "{tmp_path}/state"
        """
    )
    return file


def lanfree(path: Path, *words: str) -> tuple[int, Any, str]:
    argv = [sys.executable, "-m", "appliance.cli", "--config", str(path), "--json", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stdout + done.stderr


def back_up(path: Path, run: str) -> RestorePoint:
    with Services(config.load(path)) as services, services.repository.image_writer("vda", len(DISK), None) as writer:
        for start in range(0, len(DISK), MiB):
            writer.write(start, memoryview(DISK)[start : start + MiB])
        facts = ("", "m1", "web", "h1", run, datetime.now(UTC), Level.FULL, Consistency.CRASH, (writer.seal(),))
        return services.repository.seal(RestorePoint(*facts, configuration=MachineConfiguration("none", "")))


def test_a_repository_in_a_bucket_is_made_used_copied_and_kept(path: Path, server: S3Server, tmp_path: Path) -> None:
    code, document, said = lanfree(path, "init")
    assert (code, document["made"]) == (0, True), said
    old, new = back_up(path, "1"), back_up(path, "2")
    assert new.images[0].bytes_new == 0
    assert [p["id"] for p in lanfree(path, "points")[1]] == [old.id, new.id]
    assert lanfree(path, "verify")[1]["damage"] == []
    assert lanfree(path, "audit")[0] == 0
    code, copied, said = lanfree(path, "copy", "disk", "--make", "--read-back")
    assert (code, [c["outcome"] for c in copied]) == (0, ["copied", "copied"]), said
    code, shown, said = lanfree(path, "prune", "--apply")
    assert code == 7, said
    assert [(line["keep"], line["removed"]) for line in shown] == [(False, False), (True, False)]
    assert "retained" in shown[0]["why"] or "kept" in shown[0]["why"]
    assert len(lanfree(path, "points")[1]) == 2
    assert lanfree(path, "collect")[0] == 0
    assert "a secret of no worth" not in said + str(shown)


def test_an_image_in_a_bucket_is_exported(path: Path, tmp_path: Path) -> None:
    assert lanfree(path, "init")[0] == 0
    point = back_up(path, "1")
    settings = config.load(path)
    argument = {
        "repository": settings.repository.model_dump(mode="json", exclude_unset=True),
        "point": point.id,
        "key": "vda",
    }
    out = tmp_path / "vda.raw"
    with Export([ImageToExport("vda", "appliance.opener:open_image", argument)]) as export:
        subprocess.run(["nbdcopy", export.served[0].uri, str(out)], check=True, timeout=60)
    assert out.read_bytes() == DISK
