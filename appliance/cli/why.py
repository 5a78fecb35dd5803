"""``lanfree why-big``: what a restore point's size is due to."""

from typing import Annotated

import typer

from appliance import explaining
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import table
from mounter.index.attribution import directories
from mounter.layout.owners import Part
from mounter.ports import shown
from proxy.units import format_size

_WORDS = {
    Part.FREE: "space that no file has any more, or not yet",
    Part.METADATA: "the file system's own tables",
    Part.OTHER: "not told",
}


@app.command("why-big")
def why_big(
    point: Annotated[str, typer.Argument(metavar="POINT", help="Restore point; the beginning of its id is enough.")],
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
    above = directories(answer.causes, limit)
    rows = [
        (part.value, format_size(answer.part(part)), _percent(answer.part(part), answer.changed), _WORDS.get(part, ""))
        for part in Part
        if answer.part(part)
    ]
    since = f"since {answer.base}" if answer.base else "and there is none before it"
    CONTEXT.output.result(
        {
            "point": answer.point,
            "base": answer.base,
            "changed": answer.changed,
            "exact": answer.exact,
            "parts": {part.value: answer.part(part) for part in Part},
            "files": [_document(shown(c.path), c.bytes) | {"guessed": c.guessed} for c in files],
            "directories": [_document(shown(path), size) for path, size in above],
            "notes": list(answer.notes),
        },
        f"{answer.point}: {format_size(answer.changed)} in changed chunks, {since}",
        table("WHAT", "BYTES", "SHARE", "", rows=rows),
        table(
            "FILE",
            "BYTES",
            "SHARE",
            rows=[
                (
                    shown(c.path) + (" (guessed)" if c.guessed else ""),
                    format_size(c.bytes),
                    _percent(c.bytes, answer.changed),
                )
                for c in files
            ],
        ),
        table(
            "DIRECTORY WITH ALL BELOW",
            "BYTES",
            "SHARE",
            rows=[(shown(path), format_size(size), _percent(size, answer.changed)) for path, size in above],
        ),
        *answer.notes,
    )


def _document(path: str, size: int) -> dict[str, object]:
    return {"path": path, "bytes": size}


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
