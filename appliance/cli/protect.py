"""``lanfree protect``: the appliance's own state into its repository, as after each job run."""

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.keeping_tables import NOT_ENABLED, protect_lines
from appliance.cli.output import ATTENTION
from appliance.keeping import lines


@app.command()
def protect() -> None:
    """Bring configuration, keys, passwords and databases of this appliance into the repository and every [[copy_to]], as
    restore points of 'lanfree'. Happens after each job run by itself; 'lanfree bootstrap' makes an appliance of it."""
    from appliance.protection import backup  # noqa: PLC0415  # brings the databases, which other commands do without

    with CONTEXT.services() as services:
        report = backup.protect(services)
    if not report.enabled:
        CONTEXT.output.result(report, NOT_ENABLED)
        return
    targets = [lines.protected(each) for each in report.targets]
    CONTEXT.output.result(report, *protect_lines(targets, report.size, len(report.files)))
    for problem in (*report.problems, *report.remarks):
        CONTEXT.output.warn(problem)
    if report.problems:
        raise typer.Exit(ATTENTION)
