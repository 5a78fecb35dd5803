"""``lanfree --server URL why-big``."""

from typing import Annotated

import typer

from api.schemas.sizes import SizeExplanation
from appliance.cli.app import CONTEXT, app
from appliance.cli.remote.points import point_of
from appliance.cli.shared_options import Point
from appliance.cli.why_tables import why_lines


@app.command("why-big")
def why_big(
    point: Point,
    limit: Annotated[int, typer.Option(min=1, max=500, help="So many files and directories.")] = 20,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Count changed chunks by all that is in them, and read file system tables only."),
    ] = False,
) -> None:
    """What the changed chunks of a restore point are due to: files, directories, journals, free space. The shares add up
    to what changed since the restore point before."""
    with CONTEXT.asking() as server:
        found = point_of(server, point)
        answer = server.get(SizeExplanation, f"/restore-points/{found.id}/why-big", most=limit, quick=quick)
    document = answer.model_dump(mode="json")
    CONTEXT.output.result(document, *why_lines(document))
