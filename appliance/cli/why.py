"""``lanfree why-big``: what a restore point's size is due to."""

from typing import Annotated

import typer

from appliance import explaining
from appliance.cli.app import CONTEXT, app
from appliance.cli.shared_options import Point
from appliance.cli.why_tables import why_lines
from mounter.index.attribution import directories
from mounter.layout.owners import Part
from mounter.ports import shown


@app.command("why-big")
def why_big(
    point: Point,
    limit: Annotated[int, typer.Option(min=1, help="So many files and directories.")] = 20,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Count changed chunks by all that is in them, and read file system tables only."),
    ] = False,
) -> None:
    """What the changed chunks of a restore point are due to: files, directories, journals, free space. The shares add up
    to what changed since the restore point before."""
    with CONTEXT.services() as services:
        answer = explaining.why_big(services, point, compare=not quick)
    files = [c for c in answer.causes if c.part is Part.FILE][:limit]
    document = {
        "point": answer.point,
        "base": answer.base,
        "changed": answer.changed,
        "exact": answer.exact,
        "parts": {part.value: answer.part(part) for part in Part},
        "files": [_document(shown(c.path), c.bytes) | {"guessed": c.guessed} for c in files],
        "directories": [_document(shown(path), size) for path, size in directories(answer.causes, limit)],
        "notes": list(answer.notes),
    }
    CONTEXT.output.result(document, *why_lines(document))


def _document(path: str, size: int) -> dict[str, object]:
    return {"path": path, "bytes": size}
