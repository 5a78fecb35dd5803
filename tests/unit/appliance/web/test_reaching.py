"""What a caller is told of what nobody can describe now."""

from datetime import UTC, datetime, timedelta

import pytest

from api.auth.roles import Caller
from appliance.jobs.advice import Night
from appliance.night import Preview
from appliance.web.plan_words import plan_for
from appliance.web.reaching import silences
from catalog.jobs.limits import Limits

SILENT = {"esx1": "disconnected", "machine db-1": "its files are gone", "machine secret-9": "its files are gone"}
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("machines", "told"),
    [
        (("*",), ["esx1", "machine db-1", "machine secret-9"]),
        (("db-*",), ["esx1", "machine db-1"]),
        (("machine*",), ["esx1"]),
        ((), ["esx1"]),
    ],
)
def test_machines_that_cannot_be_described_are_told_to_who_reaches_them(
    machines: tuple[str, ...], told: list[str]
) -> None:
    caller = Caller("alice", frozenset(), machines)
    assert [each.where for each in silences(caller, SILENT)] == told


def test_no_note_of_a_plan_names_a_machine_out_of_reach() -> None:
    notes = (f"job nightly: name=x chose nothing ({', '.join(sorted(SILENT))} did not answer)", "job other is off")
    night = Night((), Limits(), NOW)
    seen = Preview(NOW, NOW + timedelta(hours=8), night, night.plan(), (), (), (), SILENT, notes)
    all_, some = (
        plan_for(Caller("alice", frozenset(), machines), seen, None, limit=9, columns=9)
        for machines in (("*",), ("db-*",))
    )
    assert (all_.notes, some.notes) == ([*notes], ["job other is off"])
    assert "secret-9" in all_.model_dump_json()
    assert "secret-9" not in some.model_dump_json()
