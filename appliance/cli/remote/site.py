"""``lanfree --server URL``: ``plan``, ``coverage``, ``proxies``, ``host``, ``doctor``, ``notify``, ``access-log``."""

import sys
from itertools import islice
from typing import Annotated

import typer

from api.paging import Page
from api.schemas.audit import AuditCheck, AuditEntry
from api.schemas.coverage import Coverage
from api.schemas.hypervisors import Hypervisor, Tried
from api.schemas.plan import Plan
from api.schemas.proxies import Proxies
from api.schemas.settings import Diagnosis, NotificationResults, Outcome
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, exit_code, local, soon, table, zoned
from appliance.cli.remote.machines import machine_of
from appliance.overview import ago
from proxy.errors import IntegrityError, NotTold

ROWS = 40
"""Machines in a plan's table; --all shows them all."""

host = typer.Typer(no_args_is_help=True, help="Hypervisor hosts.")
app.add_typer(host, name="host")

log = typer.Typer(no_args_is_help=True, help="Who looked into restore points, and what was done.")
app.add_typer(log, name="access-log")

notify = typer.Typer(no_args_is_help=True, help="Ways to people: mail, chat, webhooks, syslog.")
app.add_typer(notify, name="notify")


@app.command("plan")
def plan(
    hours: Annotated[float, typer.Option(min=0.25, max=24 * 14, help="How far to look.")] = 24.0,
    job: Annotated[str | None, typer.Option(help="Show only this job; the others are planned all the same.")] = None,
    advice: Annotated[
        bool, typer.Option("--advise", help="Propose changes that would help, with their effect.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every machine in the table.")] = False,
) -> None:
    """The coming night: which machine's backup begins when, as measured durations and limits allow. Nothing is begun."""
    with CONTEXT.asking() as server:
        seen = server.get(Plan, "/plan", hours=hours, job=job, advise=advice)
    entries = seen.entries if every else seen.entries[:ROWS]
    rows = [
        (soon(e.begin, seen.at), e.name, e.job, e.host, "everything" if e.full else "changes", ago(e.expected_seconds))
        for e in entries
    ]
    runs = [
        (
            r.job,
            "under way" if r.under_way else soon(r.begin, seen.at),
            soon(r.end, seen.at) if r.end else "none",
            r.machines,
        )
        for r in seen.runs
    ]
    unfit = [(u.name, u.job, ago(u.expected_seconds), u.reason.detail) for u in seen.unfit]
    shown = [
        table("JOB", zoned("BEGINS"), "WINDOW ENDS", "MACHINES", rows=runs) if runs else "no job begins in this time",
        *([table(zoned("WHEN"), "MACHINE", "JOB", "HOST", "READS", "TAKES", rows=rows)] if rows else []),
        *([table("NO PLACE FOR", "JOB", "TAKES", "WHY", rows=unfit)] if unfit else []),
        *seen.notes,
        *(f"{each.what}: {each.after.unfit} without a place" for each in seen.advice or ()),
    ]
    CONTEXT.output.result(seen.model_dump(mode="json"), *shown)
    for silence in seen.silent:
        CONTEXT.output.warn(f"{silence.where} does not answer, its machines are not in the plan: {silence.why}")
    if seen.unfit or seen.silent:
        raise typer.Exit(ATTENTION)


@app.command("coverage")
def coverage(
    objective: Annotated[
        float | None, typer.Option(min=0.01, help="Hours within which every machine is to have a restore point.")
    ] = None,
    gaps: Annotated[bool, typer.Option("--gaps", help="Only machines that are not covered.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a machine, for spreadsheets.")] = False,
) -> None:
    """Which machines are protected and what is not: exit code 0 if everything is covered, 7 if anything is not."""
    with CONTEXT.asking() as server:
        found = server.get(Coverage, "/coverage", objective=objective, gaps=gaps)
        if as_csv:
            sys.stdout.write(server.call("GET", "/reports/coverage.csv", objective=objective, gaps=gaps).text)
    if not as_csv:
        CONTEXT.output.result(found.model_dump(mode="json"), *_told(found))
    if not found.covered:
        raise typer.Exit(ATTENTION)


def _told(found: Coverage) -> list[object]:
    rows = [
        (
            m.name,
            ", ".join(m.jobs) or "none",
            local(m.created_at) if m.created_at else "never",
            "-" if m.age is None else f"{ago(3600 * m.age)} of {m.objective:.0f} h",
            m.consistency or "-",
            "covered" if m.covered else "NOT COVERED",
        )
        for m in found.machines
    ]
    lines = [
        f"{'!' if each.counts else '·'} {m.name}: {each.kind}: {each.text}"
        + (f" (accepted: {each.accepted})" if each.accepted else "")
        for m in found.machines
        for each in m.findings
    ]
    lines += [
        f"! {silence.where} did not answer, nobody knows what runs there: {silence.why}" for silence in found.silent
    ]
    lines += [f"! {problem}" for problem in found.problems]
    lines.append(f"{found.total} machines, {found.gaps} not covered")
    columns = ("MACHINE", "JOBS", zoned("NEWEST GOOD"), "AGE", "CONSISTENT", "")
    return [*([table(*columns, rows=rows)] if rows else []), "\n".join(lines)]


@app.command("proxies")
def proxies() -> None:
    """The proxies of that site: alive or not, how busy, which fabrics they reach. Exit code 7 when one is silent."""
    with CONTEXT.asking() as server:
        seen = server.get(Proxies, "/proxies")
    rows = [
        (
            p.machine,
            p.name,
            f"{ago(p.silent_for)} ago" + ("" if p.alive else ": silent"),
            ago(p.up_seconds),
            f"{p.tasks} of {p.slots}",
            p.version,
            ", ".join(p.paths) or "-",
        )
        for p in seen.items
    ]
    shown = table("PROXY", "NAME", "HEARD OF", "UP", "TASKS", "VERSION", "REACHES", rows=rows)
    CONTEXT.output.result(seen.model_dump(mode="json"), shown if rows else "no proxy serves")
    if any(not p.alive for p in seen.items):
        raise typer.Exit(ATTENTION)


@host.command("list")
def list_hosts() -> None:
    """The hypervisors, and how the last look at each went."""
    with CONTEXT.asking() as server:
        found = server.get(Page[Hypervisor], "/hypervisors").items
    rows = [(h.name, h.kind.value, h.address, h.state.value, h.machines, h.error) for h in found]
    shown = table("HOST", "KIND", "ADDRESS", "STATE", "MACHINES", "", rows=rows)
    CONTEXT.output.result([h.model_dump(mode="json") for h in found], shown)


@host.command("add")
def add_host(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    uri: Annotated[str, typer.Argument(help="libvirt URI, for example qemu+ssh://root@host/system")],
    overlay_directory: Annotated[str, typer.Option(help="Path on the host for guest writes during a backup.")] = (
        "/var/lib/libvirt/images/lanfree"
    ),
) -> None:
    """Add a libvirt host, after the appliance has asked it for its machines."""
    body = {"kind": "kvm", "name": name, "uri": uri, "overlay_directory": overlay_directory}
    with CONTEXT.asking() as server:
        tried = server.post(Tried, "/hypervisors", body)
    CONTEXT.output.result(tried.model_dump(mode="json"), f"host {name} added, it has {tried.machines} machines")


@app.command()
def doctor() -> None:
    """Check that machine and what is configured there. Each failure has its one-line remedy."""
    with CONTEXT.asking() as server:
        seen = server.get(Diagnosis, "/doctor")
    lines = [
        f"{each.outcome.value:<4} {each.check}: {each.detail}" + (f"  to do: {each.remedy}" if each.remedy else "")
        for each in seen.results
    ]
    CONTEXT.output.result(seen.model_dump(mode="json"), *lines)
    if seen.worst is not Outcome.OK:
        raise typer.Exit(1 if seen.worst is Outcome.FAIL else ATTENTION)


@notify.command("test")
def test(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of a [[notify]]; all, if none is said.")] = None,
) -> None:
    """Send a test message at once, past quiet hours."""
    with CONTEXT.asking() as server:
        done = server.post(NotificationResults, "/notifications/test", {"name": name})
    rows = [(each.name, "yes" if each.told else "no", each.why) for each in done.results]
    CONTEXT.output.result(done.model_dump(mode="json"), table("WAY", "TOLD", "", rows=rows))
    if not all(each.told for each in done.results):
        raise typer.Exit(exit_code(NotTold("", "")))


@log.command("list")
def list_entries(
    machine: Annotated[str | None, typer.Option(help="Only of this machine, by name or identity.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
) -> None:
    """The newest entries of the audit log, the newest first."""
    with CONTEXT.asking() as server:
        identity = machine_of(server, machine).id if machine else None
        found = list(islice(server.items(AuditEntry, "/audit", machine=identity, limit=min(limit, 1000)), limit))
    rows = [(e.number, local(e.at), e.who, e.action, e.restore_point or "", _facts(e)) for e in found]
    columns = ("NUMBER", zoned("WHEN"), "WHO", "ACTION", "RESTORE POINT", "DETAIL")
    CONTEXT.output.result([e.model_dump(mode="json") for e in found], table(*columns, rows=rows))


@log.command("check")
def check() -> None:
    """Whether entries of the audit log were changed or taken out. Prints its head, which may be kept elsewhere."""
    with CONTEXT.asking() as server:
        seen = server.post(AuditCheck, "/audit/check")
    rows = [(f.number, f.why) for f in seen.faults]
    good = f"{seen.entries} entries, whole and unchanged"
    shown = table("FROM ENTRY", "WHAT", rows=rows) if rows else good
    CONTEXT.output.result(seen.model_dump(mode="json"), shown, f"head {seen.head}")
    if seen.faults:
        raise typer.Exit(exit_code(IntegrityError("", "")))


def _facts(entry: AuditEntry) -> str:
    return ", ".join(f"{name} {value}" for name, value in entry.detail.items())
