"""``lanfree coverage``: what of each machine is protected, and what is not. Made for monitoring, too."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, local, plain, table, zoned
from appliance.jobs.coverage import Coverage, Covered, Finding
from appliance.keeping import coverage_csv
from appliance.keeping.covering import coverage as look


@app.command()
def coverage(
    objective: Annotated[
        float | None, typer.Option(min=0.01, help="Hours within which every machine is to have a restore point.")
    ] = None,
    gaps: Annotated[bool, typer.Option("--gaps", help="Only machines that are not covered.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a machine, for spreadsheets.")] = False,
) -> None:
    """Which machines are protected, by which jobs, how recently and how well, and what is not: exit code 0 if everything is
    covered, 7 if anything is not (it is named), others as everywhere."""
    with CONTEXT.services() as services:
        found = look(services, objective)
    shown = [machine for machine in found.machines if not (gaps and machine.covered)]
    if as_csv:
        coverage_csv.write(sys.stdout, shown, found.former)
    else:
        CONTEXT.output.result(_document(found, shown), *_told(found, shown))
    if not found.covered:
        raise typer.Exit(ATTENTION)


def _told(found: Coverage, shown: Sequence[Covered]) -> list[object]:
    rows = [
        (
            machine.name,
            ", ".join(machine.jobs) or "none",
            local(machine.created_at) if machine.created_at else "never",
            _age(machine.age, machine.objective) if machine.age is not None else "-",
            machine.consistency.value if machine.consistency else "-",
            ", ".join(machine.copies) or "-",
            "covered" if machine.covered else "NOT COVERED",
        )
        for machine in shown
    ]
    columns = ("MACHINE", "JOBS", zoned("NEWEST GOOD"), "AGE", "CONSISTENT", "COPIES", "")
    lines = [_line(machine, each) for machine in shown for each in machine.findings]
    lines += [f"! {host} did not answer, nobody knows what runs there: {why}" for host, why in found.silent.items()]
    lines += [f"! {problem}" for problem in found.problems]
    for title, former in (("on no site any more", found.former), ("on no site that answers", found.unseen)):
        lines += [f"· {each.name} is {title}; its newest restore point is {each.newest}" for each in former]
    missing = sum(not machine.covered for machine in found.machines)
    lines.append(f"{len(found.machines)} machines, {missing} not covered, {len(found.former)} on no site any more")
    # As one text: to print ten thousand of them one by one takes several seconds.
    return [*([table(*columns, rows=rows)] if rows else []), "\n".join(lines)]


def _age(age: float, objective: float) -> str:
    """``3 of 26 h``; under an hour in minutes, and fractions of the hours where a whole number would say another thing."""
    if objective < 1:
        return f"{_hours(age)} of {_hours(objective)}"
    return f"{age:.0f} of {objective:.0f} h" if age >= 1 else f"{_hours(age)} of {objective:.0f} h"


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.0f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _line(machine: Covered, finding: Finding) -> str:
    accepted = f" (accepted: {finding.accepted})" if finding.accepted else ""
    return f"{'!' if finding.counts else '·'} {machine.name}: {finding.kind.value}: {finding.text}{accepted}"


def _document(found: Coverage, shown: Sequence[Covered]) -> dict[str, object]:
    machines = []
    for machine in shown:
        document: dict[str, object] = plain(machine)
        document["covered"] = machine.covered
        document["findings"] = [plain(each) | {"counts": each.counts} for each in machine.findings]
        machines.append(document)
    rest = {"former": found.former, "unseen": found.unseen, "silent": found.silent, "problems": found.problems}
    return {"covered": found.covered, "machines": machines, **rest}
