import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.telling import events
from appliance.telling.outbox import Outbox

AT = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
EVENT = replace(events.coverage_lost("x", ["web\udcff", "db"], AT, 26), job="x", lines=("one", "two"))
HOUR = timedelta(hours=1)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


def test_a_message_comes_back_as_it_was(outbox: Outbox) -> None:
    outbox.put("ops", EVENT, AT, AT + HOUR)
    (message,) = outbox.waiting("ops")
    assert message.event == EVENT
    assert (message.made_at, message.not_before, message.attempts) == (AT, AT + HOUR, 0)
    assert outbox.waiting("others") == []


def test_another_attempt_is_remembered_and_what_was_taken_is_gone(outbox: Outbox) -> None:
    outbox.put("ops", EVENT, AT, AT)
    (message,) = outbox.waiting("ops")
    outbox.again(message, AT + HOUR, frozenset({"a"}))
    (again,) = outbox.waiting("ops")
    assert (again.id, again.attempts, again.told, again.not_before) == (message.id, 1, frozenset({"a"}), AT + HOUR)
    outbox.taken(again)
    outbox.again(again, AT, frozenset())
    assert outbox.waiting("ops") == []


def test_messages_are_told_in_their_order_and_old_ones_go_when_there_are_too_many(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.telling.outbox.MOST", 5)
    lost = [outbox.put("ops", replace(EVENT, about=str(n)), AT, AT) for n in range(8)]
    assert lost == [0] * 5 + [1, 1, 1]
    assert [message.event.about for message in outbox.waiting("ops")] == [str(n) for n in range(3, 8)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 1}'])
def test_a_file_that_is_no_message_is_put_aside(outbox: Outbox, tmp_path: Path, text: str) -> None:
    outbox.put("ops", EVENT, AT, AT)
    (tmp_path / "outbox" / "ops" / "0.json").write_text(text)
    assert len(outbox.waiting("ops")) == 1
    assert (tmp_path / "outbox" / "ops" / "0.broken").exists()


def test_only_one_process_delivers_a_way_at_a_time(outbox: Outbox, tmp_path: Path) -> None:
    other = Outbox(tmp_path / "outbox")
    with outbox.delivering("ops") as first, other.delivering("ops") as second, other.delivering("chat") as third:
        assert (first, second, third) == (True, False, True)
    with other.delivering("ops") as later:
        assert later


def test_messages_are_for_their_owner_alone(outbox: Outbox, tmp_path: Path) -> None:
    outbox.put("ops", EVENT, AT, AT)
    assert (tmp_path / "outbox" / "ops").stat().st_mode & 0o077 == 0


def fresh(outbox: Outbox, moment: datetime, *about: str, kind: str = "repository") -> set[str]:
    with outbox.news(kind, about, moment, HOUR) as news:
        return set(news)


def test_the_same_trouble_is_news_once_in_a_while_and_its_end_once(outbox: Outbox) -> None:
    with outbox.over("repository", ["/backup"], AT) as over:
        assert not over
    told = [fresh(outbox, AT + timedelta(minutes=minutes), "/backup") for minutes in (0, 1, 59, 60, 61)]
    assert told == [{"/backup"}, set(), set(), {"/backup"}, set()]
    assert fresh(outbox, AT + HOUR, "/backup", "/other") == {"/other"}
    assert outbox.told("repository") == {"/backup", "/other"}
    for expected in ({"/backup"}, set()):
        with outbox.over("repository", ["/backup"], AT) as over:
            assert over == expected
    assert fresh(outbox, AT, "/backup") == {"/backup"}


def test_what_could_not_be_written_down_is_still_news(outbox: Outbox) -> None:
    with pytest.raises(OSError, match="no space"), outbox.news("repository", ["/backup"], AT, HOUR):
        raise OSError("no space")
    assert fresh(outbox, AT, "/backup") == {"/backup"}


def test_a_clock_that_was_put_back_does_not_silence_anybody(outbox: Outbox) -> None:
    assert fresh(outbox, AT, "/backup")
    assert fresh(outbox, AT - timedelta(days=400), "/backup")


def test_what_was_told_is_forgotten_in_the_end_and_a_torn_note_does_no_harm(outbox: Outbox, tmp_path: Path) -> None:
    note = tmp_path / "outbox" / "told.json"
    fresh(outbox, AT, "/backup")
    fresh(outbox, AT, "j1", kind="run")
    fresh(outbox, AT + timedelta(days=4), "p", kind="proxy-gone")
    assert list(json.loads(note.read_text())) == ["repository /backup", "proxy-gone p"]
    fresh(outbox, AT + timedelta(days=31), "q", kind="proxy-gone")
    assert "repository /backup" not in json.loads(note.read_text())
    note.write_text("{")
    assert fresh(outbox, AT, "/backup") == {"/backup"}


def test_nothing_is_written_where_nothing_is_new(outbox: Outbox, tmp_path: Path) -> None:
    fresh(outbox, AT, "/backup")
    before = (tmp_path / "outbox" / "told.json").stat().st_mtime_ns
    fresh(outbox, AT, "/backup")
    with outbox.over("repository", ["/other"], AT):
        pass
    assert (tmp_path / "outbox" / "told.json").stat().st_mtime_ns == before
