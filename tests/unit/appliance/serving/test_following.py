"""What serves follows the configuration file."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance import config
from appliance.serving import following
from appliance.serving.following import Following

TEXT = "[repository]\nunencrypted = true\n[limits]\nper_host = 3\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.0)
    path = tmp_path / "lanfree.toml"
    path.write_text(TEXT)
    return path


def test_nothing_waits_until_the_file_says_something_else(file: Path) -> None:
    follows = Following(config.load(file))
    assert not follows.look()
    file.write_text(TEXT + "# a remark\n")
    assert not follows.look()
    file.write_text(TEXT.replace("3", "5"))
    assert follows.look()
    assert follows.settings.limits.per_host == 3
    assert follows.take()
    assert follows.settings.limits.per_host == 5
    assert not follows.look()
    assert not follows.take()


def test_a_change_between_reading_and_following_is_not_lost(file: Path) -> None:
    settings = config.load(file)
    file.write_text(TEXT.replace("3", "5"))
    assert Following(settings).look()


def test_what_is_taken_back_before_it_was_taken_is_forgotten(file: Path) -> None:
    follows = Following(config.load(file))
    file.write_text(TEXT.replace("3", "55"))
    assert follows.look()
    file.write_text(TEXT)
    assert not follows.look()


def test_what_is_not_valid_is_told_once_and_what_counted_counts_on(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follows = Following(config.load(file))
    file.write_text(TEXT.replace("3", "'many'"))
    with caplog.at_level(logging.ERROR):
        assert not follows.look()
        assert not follows.look()
    (record,) = caplog.records
    assert "per_host" in record.getMessage()
    assert follows.settings.limits.per_host == 3
    file.write_text(TEXT.replace("3", "5"))
    assert follows.look()


def test_a_task_that_goes_on_for_hours_does_not_keep_others_from_beginning(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: now[0]))
    follows = Following(config.load(file))
    assert not follows.holds()
    file.write_text(TEXT.replace("3", "55"))
    assert follows.holds()
    now[0] += following.HOLD_SECONDS
    assert not follows.holds()
    assert follows.look(), "it is taken all the same as soon as nothing runs"
    file.write_text(TEXT.replace("3", "777"))
    assert not follows.holds(), "another change does not hold it up anew"
    now[0] += following.HOLD_EVERY - following.HOLD_SECONDS
    assert follows.holds()
    assert follows.take()
    assert not follows.holds()
