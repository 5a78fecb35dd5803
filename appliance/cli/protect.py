"""``lanfree protect``: the appliance's own state into its repository, as after each job run."""

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, table
from proxy.units import format_size


@app.command()
def protect() -> None:
    """Bring configuration, keys, passwords and databases of this appliance into the repository and every [[copy_to]], as
    restore points of 'lanfree'. Happens after each job run by itself; 'lanfree bootstrap' makes an appliance of it."""
    from appliance.protection import backup  # noqa: PLC0415  # brings the databases, which other commands do without

    with CONTEXT.services() as services:
        report = backup.protect(services)
    if not report.enabled:
        CONTEXT.output.result(report, "[protect] enabled is false: nothing was done")
        return
    rows = [
        (
            each.repository,
            each.point or "none",
            "made" if each.made else "failed" if each.problem else "unchanged",
            format_size(each.bytes_stored),
            len(each.removed),
        )
        for each in report.targets
    ]
    CONTEXT.output.result(
        report,
        table("REPOSITORY", "RESTORE POINT", "", "STORED", "REMOVED", rows=rows),
        f"{format_size(report.size)}: the configuration, {len(report.files)} files that it names, the databases",
    )
    for problem in (*report.problems, *report.remarks):
        CONTEXT.output.warn(problem)
    if report.problems:
        raise typer.Exit(ATTENTION)
