"""``lanfree job export`` and ``import``: all jobs as a file that a version control holds."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.app import CONTEXT
from appliance.cli.jobs import job, plain_job
from appliance.jobs import editing, job_text
from appliance.jobs.describing import remarks
from appliance.jobs.editing import What
from proxy.errors import ConfigurationError


@job.command("export")
def export(
    names: Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Which ones; all without.")] = None,
) -> None:
    """Jobs as YAML on stdout: 'lanfree job export > jobs.yaml'. What is as by default is left out."""
    with CONTEXT.services() as services, services.jobs.transaction(write=False) as unit:
        now = services.clock.now()
        found = [unit.jobs.get(name) for name in names] if names else unit.jobs.list()
    if CONTEXT.output.as_json:
        CONTEXT.output.result([plain_job(each, now) for each in found])
        return
    sys.stdout.write(job_text.write({each.name: job_text.of(each) for each in found}))


@job.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="As 'job export' wrote it; - reads stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove jobs that the file does not name.")] = False,
) -> None:
    """Make the jobs of a file, and change those that there are: all of it, or nothing where one thing is wrong."""
    wanted = editing.wanted(_text(file), "stdin" if str(file) == "-" else str(file))
    with CONTEXT.services() as services:
        now = services.clock.now()
        with services.jobs.transaction(write=not dry_run) as unit:
            changes = editing.compare(unit.jobs.list(), wanted, prune=prune)
            if not dry_run:
                editing.apply(unit, [change for change in changes if change.what is not What.SAME], now)
        settings = services.settings
    done = [change for change in changes if change.what is not What.SAME]
    document = {
        "dry_run": dry_run,
        "jobs": [{"name": change.name, "what": change.what, "difference": change.difference} for change in changes],
    }
    lines = [line for change in done for line in (f"{change.what.value} {change.name}", *change.difference)]
    said = f"{len(done)} of {len(changes)} jobs {'would change' if dry_run else 'changed'}"
    CONTEXT.output.result(document, *lines, said)
    for change in done:
        for remark in remarks(settings, change.after.policy, now) if change.after else ():
            CONTEXT.output.warn(f"job {change.name}: {remark}")


def _text(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read(job_text.LONGEST_TEXT + 1)
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(job_text.LONGEST_TEXT + 1)
    except OSError as error:
        raise ConfigurationError(str(file), error.strerror or "cannot be read") from None
    except UnicodeDecodeError:
        raise ConfigurationError(str(file), "it is not UTF-8 text") from None
