"""Times as the command line takes them."""

from datetime import timedelta

import pytest
import typer

from appliance.cli.export import span


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("8h", timedelta(hours=8)),
        ("2d", timedelta(days=2)),
    ],
)
def test_a_time_has_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    assert span(text) == expected


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1.5h", "1w", "1h30m", "9999999d"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="say 90s, 30m, 8h or 2d"):
        span(text)
