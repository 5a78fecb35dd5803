"""Jobs and status where the jobs are in PostgreSQL, with a password in a file: the same commands, the same words."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.catalog.postgres_server import PostgresServer, postgres_server

pytestmark = pytest.mark.tools

SECRET = "not-for-anybody"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server(SECRET) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, server: PostgresServer) -> Path:
    password = tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    password.chmod(0o600)
    (tmp_path / "lanfree.toml").write_text(
        f'[repository]\npath = "{tmp_path}/repository"\nunencrypted = true\n[state]\ndirectory = "{tmp_path}/state"\n'
        f'[database]\nurl = "{server.url(server.database())}"\npassword_file = "{password}"\n'
    )
    return tmp_path


def lanfree(home: Path, *words: str) -> tuple[int, Any, str]:
    command = [sys.executable, "-m", "appliance.cli", "-c", str(home / "lanfree.toml"), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert SECRET not in done.stdout + done.stderr
    assert done.stdout.count("\n{") == 0, f"one document: {done.stdout}{done.stderr}"
    return done.returncode, json.loads(done.stdout), done.stderr


def test_jobs_and_status_are_the_same_over_postgresql(home: Path) -> None:
    assert lanfree(home, "status")[0] == 0, "an empty database gets its tables"
    code, document, said = lanfree(home, "job", "add", "nightly", "--all", "--at", "22:00", "--keep-last", "3")
    assert (code, document["revision"]) == (0, 1), said
    code, document, said = lanfree(home, "status")
    assert code == 7, said
    assert [job["name"] for job in document["jobs"]] == ["nightly"]
    assert "no proxy serves" in document["attention"][0]
    code, document, _ = lanfree(home, "job", "run", "nightly")
    assert code == 0
    status = lanfree(home, "status")[1]
    assert status["jobs"][0]["now"]["id"] == document["run"]
    assert lanfree(home, "job", "stop", "nightly")[1]["stopped"] is True


def test_a_database_that_is_away_is_told_with_what_to_do(home: Path, server: PostgresServer) -> None:
    assert lanfree(home, "status")[0] == 0
    server.stop()
    try:
        code, document, _ = lanfree(home, "status")
        assert (code, document["error"]["code"]) == (3, "database-away")
        assert "lanfree doctor" in document["error"]["hint"]
    finally:
        server.start()
    assert lanfree(home, "status")[0] == 0
