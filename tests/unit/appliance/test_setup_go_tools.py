"""The scripts that build what tests start and Go compiles: everything but the building."""

import os
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[3] / "appliance/setup"

pytestmark = pytest.mark.parametrize(
    ("script", "program"), [("s3server.sh", "versitygw-v"), ("vcsim.sh", "vcsim-"), ("oidc.sh", "oidc-")]
)


def run(script: str, tools: Path, *words: str, path: str = os.defpath) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": path, "HOME": str(tools), "LANFREE_TOOLS": str(tools)}
    return subprocess.run([SETUP / script, *words], env=environment, capture_output=True, text=True, check=False)


def test_it_tells_where_the_server_would_be_with_its_version(script: str, program: str, tmp_path: Path) -> None:
    told = run(script, tmp_path, "--path")
    assert told.returncode == 0
    assert told.stdout.startswith(f"{tmp_path}/{program}")
    assert list(tmp_path.iterdir()) == []


def test_it_does_nothing_when_the_server_is_there(script: str, program: str, tmp_path: Path) -> None:
    place = Path(run(script, tmp_path, "--path").stdout.strip())
    assert place.is_relative_to(tmp_path)
    assert place.parent.name.startswith(program)
    place.parent.mkdir()
    place.write_text("#!/bin/sh\n")
    place.chmod(0o755)
    done = run(script, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_go_it_says_what_is_missing(script: str, program: str, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "sed", "dirname", "cat", "sha256sum", "cut"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    failed = run(script, tmp_path, path=str(tools))
    assert failed.returncode == 1
    assert "Go" in failed.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((program, ".build"))]


def test_an_unknown_word_is_answered_with_the_usage(script: str, program: str, tmp_path: Path) -> None:
    failed = run(script, tmp_path, "--help")
    assert failed.returncode == 2
    assert f"{script} --path" in failed.stderr
    assert not list(tmp_path.glob(f"{program}*"))
