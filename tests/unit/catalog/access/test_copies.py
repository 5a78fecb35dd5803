"""Users in copies of the databases."""

from pathlib import Path
from typing import Any

import pytest

from catalog import portable
from catalog.access.store import AccessStore
from catalog.portable import Place
from tests.unit.catalog.access.conftest import NOW
from tests.unit.catalog.access.test_store import APPROVAL, SESSION, TOKEN, User


def filled(url: str) -> None:
    with AccessStore(url) as store, store.transaction() as unit:
        unit.users.add(User("alice", "Alice", "$argon2id$x", ("operator",), ("db-*",), NOW))
        unit.tokens.add(TOKEN)
        unit.sessions.begin(SESSION)
        unit.setup_code.put("d", SESSION.expires_at)
        unit.idempotency.begin("alice", "k", "d", NOW, SESSION.expires_at)
        unit.approvals.add(APPROVAL)


def check(url: str, *, sessions: int) -> None:
    with AccessStore(url) as store, store.transaction(write=False) as unit:
        assert unit.users.get("alice").password == "$argon2id$x"
        assert unit.tokens.of_digest("d1") == TOKEN
        assert unit.approvals.get("a1", NOW) == APPROVAL
        assert len(unit.sessions.of("alice")) == sessions
        assert (unit.setup_code.holds(NOW) is None) is (sessions == 0)


def test_a_saved_copy_has_users_and_its_next_life_no_sessions(access_url: str, tmp_path: Path) -> None:
    filled(access_url)
    copy = f"sqlite:///{tmp_path}/copy/catalog.db"
    (tmp_path / "copy").mkdir()
    with portable.saving(Place(access_url)) as saved:
        assert saved(portable.ACCESS, tmp_path / "copy/access.db")
    if access_url.startswith("sqlite"):  # pages as they are
        check(copy, sessions=1)
    with AccessStore(copy) as store:
        store.forget_passing()
    check(copy, sessions=0)


@pytest.mark.tools
def test_users_move_to_postgresql(postgres: Any, tmp_path: Path) -> None:
    filled(f"sqlite:///{tmp_path}/catalog.db")
    target = postgres.url(postgres.database())
    rows = portable.transfer(Place(f"sqlite:///{tmp_path}/catalog.db"), Place(target))
    assert (rows["users"], rows["access_tokens"], rows["approvals"]) == (1, 1, 1)
    check(target, sessions=1)
    assert not portable.is_empty(Place(target))
