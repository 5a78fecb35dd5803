"""Commands that need no hypervisor, as a user runs them: exit code, JSON, remedies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import app, files, keeping, keys, lab, machines, points, repository, site  # noqa: F401  # commands register themselves

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def lanfree(command_line: Lanfree) -> Lanfree:
    """With the configuration as its first word."""
    return command_line


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


@pytest.mark.slow
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


def test_init_encrypts_with_a_key_file_of_its_own_unless_told_otherwise(
    config: Path, lanfree: Lanfree, tmp_path: Path
) -> None:
    key = config.with_name("repository.key")
    assert key.stat().st_mode & 0o077 == 0
    assert f'key_file = "{key}"' in config.read_text()
    assert key.read_text().strip() not in config.read_text()
    clear = tmp_path / "clear.toml"
    code, document, _ = lanfree(
        clear, "init", "--unencrypted", "--repository", str(tmp_path / "r2"), "--state", str(tmp_path / "s2")
    )
    assert (code, document["key"]) == (0, None)
    assert "unencrypted = true" in clear.read_text()
    assert lanfree(clear, "points")[:2] == (0, [])


def test_without_its_key_nothing_of_a_repository_is_shown(config: Path, lanfree: Lanfree) -> None:
    key = config.with_name("repository.key")
    kept = key.read_text()
    key.unlink()
    code, document, _ = lanfree(config, "points")
    assert code == 1
    assert "from the safe" in document["error"]["hint"]
    key.touch(0o600)
    key.write_text("00" * 32)
    code, document, said = lanfree(config, "points")
    assert (code, document["error"]["code"]) == (1, "key-refused")
    key.write_text(kept)
    key.chmod(0o644)
    code, document, said = lanfree(config, "points")
    assert (code, document["error"]["hint"]) == (1, f"chmod 600 {key}")
    assert kept.strip() not in said


def test_a_lost_key_is_replaced_from_paper(config: Path, lanfree: Lanfree, tmp_path: Path) -> None:
    code, document, _ = lanfree(config, "key", "paper", "--svg", str(tmp_path / "code.svg"))
    assert code == 0
    assert "<svg" in (tmp_path / "code.svg").read_text()
    paper = tmp_path / "paper"
    paper.write_text(document["paper"])
    config.with_name("repository.key").unlink()
    for slot in (tmp_path / "repo" / "keys").iterdir():
        slot.unlink()
    code, document, said = lanfree(config, "key", "recover", str(paper))
    assert code == 0, said
    assert lanfree(config, "points")[:2] == (0, [])
    assert [s["id"] for s in lanfree(config, "key", "list")[1]] == [document["slot"]]


@pytest.mark.slow
def test_a_lost_key_is_replaced_by_a_passphrase(config: Path, lanfree: Lanfree, tmp_path: Path) -> None:
    paper, passphrase = tmp_path / "paper", tmp_path / "passphrase"
    paper.write_text(lanfree(config, "key", "paper")[1]["paper"])
    passphrase.touch(0o600)
    passphrase.write_text("correct horse battery staple\n")
    key = config.with_name("repository.key")
    key.unlink()
    code, document, said = lanfree(config, "key", "recover", str(paper), "--passphrase-file", str(passphrase))
    assert (code, document["kind"]) == (0, "passphrase"), said
    assert not key.exists()
    config.write_text(config.read_text().replace(f'key_file = "{key}"', f'passphrase_file = "{passphrase}"'))
    assert lanfree(config, "points")[:2] == (0, [])


def test_a_mistyped_paper_leaves_no_key_file(config: Path, lanfree: Lanfree, tmp_path: Path) -> None:
    good = lanfree(config, "key", "paper")[1]["paper"]
    before, _, code = good.partition("KEY 1: ")
    paper = tmp_path / "paper"
    paper.write_text(f"{before}KEY 1: {'B' if code[0] == 'A' else 'A'}{code[1:]}")
    key = config.with_name("repository.key")
    key.unlink()
    done, document, _ = lanfree(config, "key", "recover", str(paper))
    assert (done, document["error"]["code"]) == (1, "key-refused")
    assert "typing error" in document["error"]["message"]
    assert not key.exists()
    paper.write_text(good)
    assert lanfree(config, "key", "recover", str(paper))[0] == 0
    assert lanfree(config, "points")[:2] == (0, [])


@pytest.mark.slow
def test_keys_are_added_rotated_and_removed(config: Path, lanfree: Lanfree, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(0o600)
    passphrase.write_text("correct horse battery staple\n")
    code, added, said = lanfree(config, "key", "add", "for the second proxy", "--passphrase-file", str(passphrase))
    assert (code, added["kind"]) == (0, "passphrase"), said
    other = tmp_path / "other.toml"
    text = config.read_text().replace(
        f'key_file = "{config.with_name("repository.key")}"', f'passphrase_file = "{passphrase}"'
    )
    other.write_text(text)
    assert lanfree(other, "points")[:2] == (0, [])
    slots = {s["kind"]: s["id"] for s in lanfree(config, "key", "list")[1]}
    assert set(slots) == {"passphrase", "key-file"}
    code, document, _ = lanfree(config, "key", "remove", slots["key-file"])
    assert (code, document["error"]["code"]) == (1, "key-refused")
    code, document, _ = lanfree(config, "key", "rotate")
    assert (code, document["generation"]) == (0, 2)
    assert lanfree(other, "points")[0] == 1
    assert lanfree(config, "points")[:2] == (0, [])
    assert "correct horse" not in said


def test_a_host_that_was_added_is_listed_with_its_facts(config: Path, lanfree: Lanfree) -> None:
    code, _, said = lanfree(config, "host", "add", "kvm1", "qemu+ssh://root@kvm1/system", "--no-check")
    assert code == 0, said
    code, (host,), _ = lanfree(config, "host", "list")
    assert (code, host["name"], host["uri"]) == (0, "kvm1", "qemu+ssh://root@kvm1/system")
    code, document, _ = lanfree(config, "host", "add", "kvm1", "qemu:///system", "--no-check")
    assert (code, document["error"]["code"]) == (1, "configuration")
