"""What the command line says and how it ends: a contract with people and with monitoring."""

import json
import time
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from appliance.cli.output import (
    EXIT_CODES,
    Fitting,
    Output,
    exit_code,
    exit_code_of,
    gravest,
    plain,
    table,
    when,
    zoned,
)
from proxy import errors
from proxy.model import Format, FrozenDisk, Layer, LunAddress

README = Path(__file__).parents[3] / "README.md"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MachineBusy("web1", "run 7"), 3),
        (errors.Cancelled("vda"), 3),
        (errors.QuiesceFailed("web1", "no agent"), 4),
        (errors.TransportRefused("san", "vda", "lun-missing"), 4),
        (errors.RepositoryFull("/backup"), 5),
        (errors.HostUnreachable("h1", "silent"), 5),
        (errors.IntegrityError("machine web1", "flipped"), 6),
        (errors.RestoreRefused("LUN 5", "holds data"), 1),
        (errors.ConfigurationError("lanfree.toml", "bad"), 1),
        (errors.ServerRefused(409, "machine-busy", "run 7"), 3),
        (errors.ServerRefused(503, "repository-unavailable", "away"), 5),
        (errors.ServerRefused(403, "of-another-version", "no"), 1),
    ],
    ids=lambda value: getattr(value, "code", str(value)),
)
def test_every_kind_of_error_has_its_exit_code(error: errors.LanfreeError, code: int) -> None:
    assert exit_code(error) == code
    assert code in EXIT_CODES


def test_an_error_that_others_tell_by_its_code_has_the_same_exit_code() -> None:
    assert [exit_code_of(code) for code in ("repository-full", "cancelled", "of-another-version", "")] == [5, 3, 4, 4]


@pytest.mark.parametrize(("codes", "worst"), [([], 0), ([0, 0], 0), ([3, 4, 3], 4), ([1, 5], 5), ([5, 6, 1], 6)])
def test_of_several_failures_the_gravest_counts(codes: list[int], worst: int) -> None:
    assert gravest(codes) == worst


def test_the_readme_s_table_of_exit_codes_is_the_truth() -> None:
    rows = [line for line in README.read_text().splitlines() if line.startswith("| ") and line[2].isdigit()]
    table = {int(code): meaning.strip() for _, code, meaning, _ in (row.split("|") for row in rows)}
    assert table == dict(EXIT_CODES)


def test_an_error_says_what_why_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.RepositoryFull("/backup [old]")
    error.add_note("and afterwards: the overlay is still there")
    assert Output(as_json=False).error(error) == 5
    said = capsys.readouterr()
    assert said.out == ""
    assert "no space left in /backup [old]" in said.err
    assert "the overlay is still there" in said.err
    assert "to do: free space" in said.err


def test_an_error_as_json_carries_code_message_hint_and_exit(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).error(errors.MachineBusy("web1", "run 7"))
    fact = json.loads(capsys.readouterr().out)["error"]
    assert (fact["code"], fact["exit"]) == ("machine-busy", 3)
    assert "run 7" in fact["message"]
    assert fact["hint"]


def test_values_become_plain_json() -> None:
    disk = FrozenDisk("vda", 4096, (Layer(LunAddress("iqn.x", 3, ("10.0.0.1:3260",)), Format.RAW),))
    document = plain({"disk": disk, "at": datetime(2026, 1, 2, tzinfo=UTC), "name": b"caf\xe9", "where": Path("/x")})
    assert json.loads(json.dumps(document)) == {
        "disk": {
            "key": "vda",
            "size": 4096,
            "layers": [
                {
                    "location": {"target": "iqn.x", "lun": 3, "portals": ["10.0.0.1:3260"], "name": None},
                    "format": "raw",
                }
            ],
            "tracking": "none",
            "change_id": None,
            "overlay": None,
        },
        "at": "2026-01-02T00:00:00+00:00",
        "name": "caf\udce9",
        "where": "/x",
    }


POINT = "20261123T014357Z-0123456789ab"


def shown(part: object, width: int) -> str:
    out = StringIO()
    Console(file=out, width=width).print(part)
    return out.getvalue()


def test_identities_of_restore_points_are_whole_on_a_narrow_terminal() -> None:
    rows = [("a-machine-with-a-long-name", POINT, "keep", "nightly", "the newest of " + "very " * 20 + "many days")]
    for width in (60, 80, 200):
        assert POINT in shown(table("MACHINE", "RESTORE POINT", "", "RULES OF", "WHY", rows=rows), width)


def test_columns_that_do_not_fit_are_left_out_in_their_order_and_named() -> None:
    fitting = Fitting("RESTORE POINT", "SIZE", "NAME", rows=[(POINT, "1.0 GiB", "web")], drop=("SIZE", "NAME"))
    assert shown(fitting, 80).splitlines()[1].split() == [POINT, "1.0", "GiB", "web"]
    narrow = shown(fitting, 38).splitlines()
    assert narrow[1].split() == [POINT, "web"]
    assert "left out" in narrow[2] and "SIZE" in narrow[2] + narrow[3]


def test_no_text_of_a_cell_is_cut() -> None:
    said = shown(table("A", "B", rows=[("x" * 50, "y" * 50)]), 40)
    assert (said.count("x"), said.count("y")) == (50, 50)
    assert "\N{HORIZONTAL ELLIPSIS}" not in said


def test_times_name_their_zone_in_sentences_and_in_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert when(datetime(2026, 11, 23, 1, 0, tzinfo=UTC)) == "2026-11-23 10:00:00 JST"
        assert zoned("TAKEN") == "TAKEN (JST)"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert zoned("TAKEN").startswith("TAKEN (")
