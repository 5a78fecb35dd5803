"""A new appliance from a bucket with object lock."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.repository.s3_server import S3Server, program, s3_server

pytestmark = [pytest.mark.tools, pytest.mark.requires(program())]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.bucket("backup", locked=True)
        yield running


def lanfree(*words: object) -> tuple[int, Any, str]:
    command = [sys.executable, "-m", "appliance.cli", "--json", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stdout + done.stderr


def test_it_comes_from_the_bucket_and_what_is_locked_stays_there(server: S3Server, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    credentials = etc / "credentials"
    shutil.copy(server.credentials, credentials)
    credentials.chmod(0o600)
    text = f"""# of a person
[repository]
key_file = "{etc}/repository.key"
immutable_days = 1
[repository.s3]
bucket = "backup"
prefix = "site1"
endpoint = "{server.endpoint}"
credentials_file = "{credentials}"
lock = "governance"
[state]
directory = "{tmp_path}/state"
[protect]
last = 1
monthly = 0
"""
    path = etc / "lanfree.toml"
    path.write_text(text)
    assert lanfree("--config", path, "init")[0] == 0
    for number in range(2):
        path.write_text(f"{text}# {number}\n")
        code, document, said = lanfree("--config", path, "protect")
        assert code == 0, said
        assert document["targets"][0]["made"]
    assert document["targets"][0]["removed"] == []  # the lock keeps the first, whatever the rules say
    key = tmp_path / "key"
    (etc / "repository.key").rename(key)
    shutil.rmtree(etc)
    shutil.rmtree(tmp_path / "state")
    there = ("--s3-endpoint", server.endpoint, "--s3-credentials-file", server.credentials)
    code, document, said = lanfree("bootstrap", "--from-repository", "s3://backup/site1", "--key-file", key, *there)
    assert code == 0, said
    assert path.read_text() == f"{text}# 1\n"
    assert credentials.read_text() == Path(server.credentials).read_text()
    assert document["remarks"] == []
    code, listed, said = lanfree("--config", path, "points", "lanfree")
    assert code == 0, said
    assert len(listed) == 2
