"""Coverage as comma separated values: a line a machine, for spreadsheets. Pure."""

import csv
from collections.abc import Sequence
from typing import Protocol

from appliance.jobs.coverage import Covered, Former

# What a spreadsheet would take for a formula: names of machines are given by whoever may make machines.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

COLUMNS = (
    *("machine", "identity", "host", "covered", "jobs", "objective_hours", "restore_point", "created_at", "age_hours"),
    *("consistency", "copies", "gaps", "notes"),
)


class Out(Protocol):
    """Where text goes."""

    def write(self, text: str, /) -> object:
        """Takes it."""


def write(out: Out, shown: Sequence[Covered], former: Sequence[Former]) -> None:
    """With a line of names first."""
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for machine in shown:
        gaps = [f"{each.kind.value}: {each.text}" for each in machine.findings if each.counts]
        notes = [f"{each.kind.value}: {each.text}" for each in machine.findings if not each.counts]
        cells = (
            *(machine.name, machine.machine, machine.host, "yes" if machine.covered else "no", ", ".join(machine.jobs)),
            *(f"{machine.objective:g}", machine.point or ""),
            machine.created_at.isoformat() if machine.created_at else "",
            f"{machine.age:.1f}" if machine.age is not None else "",
            machine.consistency.value if machine.consistency else "",
            *(", ".join(machine.copies), "; ".join(gaps), "; ".join(notes)),
        )
        writer.writerow([_cell(cell) for cell in cells])
    for each in former:
        left = ("", "", "", each.newest, each.created_at.isoformat(), "", "", "", "", "on no site any more")
        writer.writerow([_cell(cell) for cell in (each.name, each.machine, each.host, *left)])


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
