"""Commands that need no hypervisor, as a user runs them: exit code, JSON, remedies."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import app, files, lab, machines, points, site  # noqa: F401  # commands register themselves

Lanfree = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def lanfree(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Lanfree:
    """Run the command line in this process: exit code, JSON document, all that was said."""

    def run(config: Path, *words: str) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["lanfree", "--config", str(config), "--json", *words])
        capfd.readouterr()
        code = app.run()
        said = capfd.readouterr()
        return code, json.loads(said.out) if said.out.strip() else None, said.out + said.err

    return run


@pytest.fixture
def config(tmp_path: Path, lanfree: Lanfree) -> Path:
    path = tmp_path / "lanfree.toml"
    code, _, said = lanfree(path, "init", "--repository", str(tmp_path / "repo"), "--state", str(tmp_path / "state"))
    assert code == 0, said
    return path


def test_init_makes_a_repository_once_and_finds_it_again(config: Path, lanfree: Lanfree) -> None:
    assert config.stat().st_mode & 0o077 == 0
    made = [path for path in (config.parent / "repo").rglob("*") if path.is_file()]
    code, document, _ = lanfree(config, "init")
    assert (code, document["made"]) == (0, False)
    assert [path for path in (config.parent / "repo").rglob("*") if path.is_file()] == made
    assert lanfree(config, "points")[:2] == (0, [])
    code, document, _ = lanfree(config, "verify")
    assert (code, document["damage"]) == (0, [])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["points", "no-such-machine"], 4, "no-such-machine"),
        (["verify", "no-such-point"], 1, "lanfree points"),
        (["vm", "list"], 1, "host"),
        (["host", "add", "h1", "qemu+unix:///system?socket=/nonexistent"], 5, "cannot be reached"),
        (["restore", "x", "--disk", "vda"], 1, "no restore point x"),
        (["frobnicate"], 2, "frobnicate"),
        (["backup"], 2, "--all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_is_told_with_its_exit_code(
    config: Path, lanfree: Lanfree, words: list[str], code: int, says: str
) -> None:
    before = config.read_text()
    found, _, said = lanfree(config, *words)
    assert found == code, said
    assert says in said
    assert "Traceback" not in said
    assert config.read_text() == before, "a host that does not answer is not written down"


def test_without_a_configuration_the_remedy_is_named(tmp_path: Path, lanfree: Lanfree) -> None:
    code, document, _ = lanfree(tmp_path / "none.toml", "points")
    assert code == 1
    assert "lanfree init" in document["error"]["hint"]


def test_a_repository_that_is_not_mounted_is_not_taken_for_an_empty_one(config: Path, lanfree: Lanfree) -> None:
    (config.parent / "repo").rename(config.parent / "elsewhere")
    code, document, said = lanfree(config, "points")
    assert code == 5, said
    assert document["error"]["code"] == "repository-unavailable"


def test_a_place_that_cannot_be_used_is_the_operator_s_affair_and_no_fault_of_ours(
    config: Path, lanfree: Lanfree
) -> None:
    state = config.parent / "state"
    text = config.read_text().replace(str(state), str(config / "below-a-file"))
    config.write_text(text)
    code, document, said = lanfree(config, "points")
    assert code == 1, said
    assert document["error"]["code"] == "configuration"
    assert str(config) in document["error"]["message"]


def test_times_that_no_calendar_has_are_shown_as_such() -> None:
    assert files._moment(9_223_372_036_854_775_807 * 1000) == "out of range"
    assert files._moment(0).startswith("19")
