"""The script that builds the tests' S3 server: everything but the building."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "appliance/setup/s3server.sh"


def run(tools: Path, *words: str, path: str = os.defpath) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": path, "HOME": str(tools), "LANFREE_TOOLS": str(tools)}
    return subprocess.run([SCRIPT, *words], env=environment, capture_output=True, text=True, check=False)


def test_it_tells_where_the_server_would_be_with_its_version(tmp_path: Path) -> None:
    told = run(tmp_path, "--path")
    assert told.returncode == 0
    assert told.stdout.startswith(f"{tmp_path}/versitygw-v")
    assert list(tmp_path.iterdir()) == []


def test_it_does_nothing_when_the_server_is_there(tmp_path: Path) -> None:
    program = Path(run(tmp_path, "--path").stdout.strip())
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = run(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_go_it_says_what_is_missing(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "sed"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    failed = run(tmp_path, path=str(tools))
    assert failed.returncode == 1
    assert "Go" in failed.stderr


def test_an_unknown_word_is_answered_with_the_usage(tmp_path: Path) -> None:
    failed = run(tmp_path, "--help")
    assert failed.returncode == 2
    assert "--path" in failed.stderr
