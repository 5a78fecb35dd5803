"""What is known of repositories for a while."""

from itertools import count
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.web import repositories
from appliance.web.repositories import WebRepositories
from appliance.wiring import Services


def test_what_is_too_old_is_not_kept_under_a_name_that_nobody_asks_for_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Services(Settings(source=tmp_path / "lanfree.toml")) as services:
        known = WebRepositories(services)
        looks = count()
        assert [known._sometimes("growth of monday", lambda: next(looks)) for _ in range(2)] == [0, 0]
        assert set(known._kept) == {"growth of monday"}
        monkeypatch.setattr(repositories, "_KEPT_SECONDS", -1.0)
        assert known._sometimes("growth of tuesday", lambda: 3) == 3
        assert set(known._kept) == {"growth of tuesday"}
