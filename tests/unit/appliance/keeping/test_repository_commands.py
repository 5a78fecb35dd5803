"""The words of ``lanfree copy``, ``prune``, ``collect`` and ``point`` for repositories other than our own."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance.wiring import Services
from proxy.model import RestorePoint
from tests.unit.appliance.keeping.sealed_points import NOW, appliance, key, seal

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Services]:
    """A site with a vault, which keeps one of each machine, and a source; its configuration is also a file."""
    with appliance(tmp_path / "north"):
        pass
    more = (
        f'[[copy_to]]\nname = "vault"\npath = "{tmp_path}/vault"\nkey_file = "{key(tmp_path / "vault.key")}"\n'
        "[copy_to.retention]\nlast = 1\n"
        f'[[copy_from]]\nname = "north"\npath = "{tmp_path}/north/repo"\nkey_file = "{tmp_path}/north/repo.key"\n'
    )
    with appliance(tmp_path / "south", more) as made:
        text = f'[repository]\npath = "{tmp_path}/south/repo"\nkey_file = "{tmp_path}/south/repo.key"\n'
        (tmp_path / "lanfree.toml").write_text(f'{text}[state]\ndirectory = "{tmp_path}/south/state"\n{more}')
        yield made


@pytest.fixture
def lanfree(command_line: Lanfree, ours: Services, tmp_path: Path) -> Lanfree:
    return partial(command_line, tmp_path / "lanfree.toml")


@pytest.fixture
def points(ours: Services) -> list[RestorePoint]:
    return [seal(ours.repository, NOW - timedelta(days=days)) for days in (3, 2, 1)]


def test_a_second_repository_has_its_own_retention_holds_and_collection(
    lanfree: Lanfree, points: list[RestorePoint]
) -> None:
    assert lanfree("copy", "vault", "--make")[0] == 0
    assert lanfree("point", "hold", points[0].id, "--why", "trial", "--repository", "vault")[0] == 0
    code, shown, said = lanfree("prune", "--repository", "vault", "--apply")
    assert (code, [line["removed"] for line in shown]) == (0, [False, True, False]), said
    assert "held" in shown[0]["why"]
    assert lanfree("collect", "--repository", "vault", "--dry-run")[1]["points"] == 2
    assert lanfree("point", "release", points[0].id, "--repository", "vault")[0] == 0
    assert lanfree("point", "delete", points[0].id, "--repository", "vault")[0] == 0
    code, refused, _ = lanfree("point", "delete", points[2].id, "--repository", "vault")
    assert (code, refused["error"]["code"]) == (1, "delete-refused")
    assert len(lanfree("points")[1]) == 3, "our own repository has them all"
    assert all(line["keep"] for line in lanfree("prune")[1])


def test_points_of_another_site_are_pulled(lanfree: Lanfree, points: list[RestorePoint], tmp_path: Path) -> None:
    with appliance(tmp_path / "north") as north:
        theirs = seal(north.repository, NOW, machine="far", name="far away")
    code, copied, said = lanfree("copy", "--from", "north")
    assert (code, [(c["point"], c["outcome"]) for c in copied]) == (0, [(theirs.id, "copied")]), said
    assert [c["outcome"] for c in lanfree("copy", "--from", "north", "--machine", "far away")[1]] == ["present"]
    assert len(lanfree("points")[1]) == 4


@pytest.mark.parametrize(
    "words", [("copy",), ("copy", "vault", "--from", "north"), ("copy", "--from", "north", "--make")], ids=" ".join
)
def test_a_copy_goes_one_way(words: tuple[str, ...], lanfree: Lanfree) -> None:
    assert lanfree(*words)[0] == 2


def test_an_unknown_repository_is_named_with_those_that_there_are(lanfree: Lanfree) -> None:
    for words in (("prune", "--repository", "attic"), ("collect", "--repository", "attic"), ("copy", "attic")):
        code, document, _ = lanfree(*words)
        assert (code, document["error"]["code"]) == (1, "configuration")
        assert "vault" in document["error"]["message"]
