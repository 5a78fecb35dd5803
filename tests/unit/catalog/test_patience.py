"""What is waited for, and what is told at once."""

import logging
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from catalog import database
from proxy.errors import CatalogFailed, DatabaseAway


def test_what_meets_an_absent_database_is_done_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    @database.patient(threading.Event(), wait=0.001)
    def work(number: int) -> int:
        tries.append(number)
        if len(tries) < 4:
            raise DatabaseAway("db", "gone")
        return number

    with caplog.at_level(logging.WARNING):
        assert work(7) == 7
    assert tries == [7, 7, 7, 7]
    told = [record.message for record in caplog.records]
    assert len(told) == 2, "once when it goes, once when it is back"


def test_nobody_waits_who_was_told_to_stop() -> None:
    stopped = threading.Event()
    begun = time.monotonic()
    threading.Timer(0.05, stopped.set).start()

    @database.patient(stopped, wait=60)
    def work() -> None:
        raise DatabaseAway("db", "gone")

    with pytest.raises(DatabaseAway):
        work()
    assert time.monotonic() - begun < 30


def test_other_errors_are_not_waited_out() -> None:
    @database.patient(threading.Event(), wait=60)
    def work() -> None:
        raise CatalogFailed("db", "no such table")

    with pytest.raises(CatalogFailed):
        work()


class Said(Exception):
    """An error as the driver raises it."""

    def __init__(self, words: str, sqlstate: str | None) -> None:
        super().__init__(words)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("words", "state", "away"),
    [
        ("terminating connection due to administrator command", "57P01", True),
        ("the database system is starting up", "57P03", True),
        ("sorry, too many clients already", "53300", True),
        ("canceling statement due to lock timeout", "55P03", True),
        ("connection is bad: Connection refused", None, True),
        ('FATAL:  password authentication failed for user "lanfree"', None, False),
        ("fe_sendauth: no password supplied", None, False),
        ('FATAL:  database "lanfree" does not exist', None, False),
        ("permission denied for schema public", "42501", False),
        ("could not extend file: No space left on device", "53100", False),
    ],
)
def test_a_server_that_may_come_back_is_told_from_one_that_refuses(words: str, state: str | None, away: bool) -> None:
    engine = database.open_engine("postgresql+psycopg://lanfree:secret@nowhere/lanfree")
    error = OperationalError("SELECT 1", {}, Said(words, state))
    told = database.refusal(error, engine, CatalogFailed)
    assert isinstance(told, DatabaseAway if away else CatalogFailed)
    assert words in str(told)
    assert "secret" not in str(told) + told.hint


def test_connections_that_are_all_in_use_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = database.open_engine(f"sqlite:///{tmp_path}/a.db", connections=1, more=0)
    monkeypatch.setattr(engine.pool, "_timeout", 0.05)
    with engine.connect():
        with pytest.raises(PoolExhausted) as full:
            engine.connect()
        told = database.refusal(full.value, engine, CatalogFailed)
    engine.dispose()
    assert isinstance(told, DatabaseAway)
    assert "QueuePool limit" in told.message
