"""``lanfree files``: what fits together, and what is said when there is nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import app, files, repository, site  # noqa: F401  # commands register themselves

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["/etc"], "--json needs"),
        (["/etc", "--archive", "-"], "--json needs"),
        (["/etc", "/usr"], "--to or --archive"),
        (["--to", "x"], "name paths"),
        (["/etc", "--everything", "--to", "x"], "name paths"),
        (["--everything", "--one-file-system", "--to", "x"], "all file systems"),
        (["/etc", "--to", "x", "--archive", "y.tar"], "either --to or --archive"),
        (["/a", "/b", "--to", "x", "--version", "2"], "of one file"),
        (["/a", "--to", "x", "--format", "zip"], "of an --archive"),
        (["/a", "--to", "x", "--existing", "perhaps"], "perhaps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_fit_together_are_told_before_anything_is_opened(
    lanfree: Lanfree, words: list[str], says: str
) -> None:
    code, _, said = lanfree("files", "get", "POINT", *words)
    assert (code, says in said) == (2, True), said


def test_an_archive_whose_name_tells_no_format_is_refused(lanfree: Lanfree) -> None:
    code, document, _ = lanfree("files", "get", "POINT", "/etc", "--archive", "x.rar")
    assert (code, "--format" in document["error"]["hint"]) == (1, True)


@pytest.mark.slow
def test_with_nothing_recorded_there_is_nothing_to_find_and_no_version_to_get(lanfree: Lanfree, tmp_path: Path) -> None:
    assert lanfree("init", "--repository", str(tmp_path / "repo"), "--state", str(tmp_path / "state"))[0] == 0
    words = ["--min-size", "1MiB", "--since", "2026-01-01", "--type", "file", "--deleted", "--all-versions"]
    assert lanfree("files", "find", "*.conf", *words)[:2] == (0, [])
    assert lanfree("files", "find", "x", "--min-size", "lots")[0] == 2
    assert lanfree("files", "get", "web1", "/etc/hosts", "--version", "2", "--to", str(tmp_path / "x"))[0] == 4
    assert not (tmp_path / "x").exists()
