"""Cursors: what a list gave, and what nobody gave."""

import base64
import json
from datetime import UTC, datetime

import pytest

from api.paging import decode, decode_moment, encode
from proxy.errors import ConfigurationError


def made(document: str) -> str:
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


def test_a_cursor_leads_back_to_its_key() -> None:
    assert decode(encode("näme", 7, 0.5, None), 4) == ["näme", 7, 0.5, None]
    at = datetime(2026, 11, 23, 8, 0, 0, 123, UTC)
    assert decode_moment(encode(at.isoformat(), "t1")) == (at, "t1")
    assert decode_moment(encode("2026-11-23T09:00:00+01:00", "t1")) == (datetime(2026, 11, 23, 8, tzinfo=UTC), "t1")


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", made("7"), made("{}"), made("[1, 2]"), made("[[1]]"), made("[" * 9000)]
)
def test_what_no_list_gave_is_refused(cursor: str) -> None:
    with pytest.raises(ConfigurationError, match="not one that this list gave"):
        decode(cursor, 1)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_database_compares_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        decode(encode(text), 1)


@pytest.mark.parametrize(
    "key",
    [
        ["yesterday", "t1"],
        ["2026-11-23T08:00:00", "t1"],
        ["0001-01-01T00:00:00+14:00", "t1"],
        ["9999-12-31T23:59:59-14:00", "t1"],
        ["2026-11-23T08:00:00+00:00", 1],
        [20261123, "t1"],
        [None, None],
    ],
)
def test_a_place_in_time_that_is_none_is_refused(key: list[object]) -> None:
    with pytest.raises(ConfigurationError, match="not one that this list gave"):
        decode_moment(made(json.dumps(key)))
