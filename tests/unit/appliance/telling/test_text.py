import math

import pytest

from appliance.telling.text import counted, duration, names, number, one_line


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("web-01", "web-01"),
        ("two\r\nlines: and\ta tab", "two lines: and a tab"),
        ("exe.\u202egnp", "exe. gnp"),
        ("\x1b[31mred\x07", "[31mred"),
        ("a\u2028b\u200bc", "a b c"),
        ("bro\udcffken", "bro?ken"),
        ("Müller & Söhne 🖥", "Müller & Söhne 🖥"),
        ("   ", ""),
    ],
)
def test_a_strangers_text_stays_on_its_line_and_steers_nothing(said: str, shown: str) -> None:
    assert one_line(said) == shown
    one_line(said).encode()


def test_long_text_ends_with_a_sign_of_it() -> None:
    assert one_line("x" * 1000, 10) == "x" * 9 + "…"
    assert one_line("x" * 10, 10) == "x" * 10


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(s) for s in (0, 12.4, 249, 11220, None)] == ["0 s", "12 s", "4 min 09 s", "3 h 07 min", "-"]


def test_names_are_the_first_few_and_how_many_more() -> None:
    assert names(["a", "b"]) == "a, b"
    assert names([str(n) for n in range(8)]) == "0, 1, 2, 3, 4 and 3 more"
    assert (counted(1, "machine"), counted(2, "machine"), counted(0, "entry", "entries")) == (
        "1 machine",
        "2 machines",
        "0 entries",
    )


@pytest.mark.parametrize("value", [None, "5", True, math.nan, math.inf, [1], 2.0**70])
def test_what_is_no_number_counts_as_unknown(value: object) -> None:
    assert number({"bytes_read": value}, "bytes_read") is None
    assert number({"bytes_read": 5}, "bytes_read") == 5
