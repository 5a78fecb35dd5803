"""How ``lanfree why-big`` prints its answer, this machine's or a server's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from appliance.cli.output import table
from proxy.units import format_size

if TYPE_CHECKING:
    from rich.console import RenderableType

_WORDS = {
    "free-space": "space that no file has any more, or not yet",
    "metadata": "the file system's own tables",
    "other": "not told",
}
"""Parts (``mounter.layout.owners.Part``) whose name says too little."""


def why_lines(answer: Mapping[str, Any]) -> "list[RenderableType]":
    """``answer``: as ``--json`` gives it."""
    changed = answer["changed"]
    since = f"since {answer['base']}" if answer["base"] else "and there is none before it"
    parts = [
        (part, format_size(size), _percent(size, changed), _WORDS.get(part, ""))
        for part, size in answer["parts"].items()
        if size
    ]
    files = [
        (
            one["path"] + (" (guessed)" if one["guessed"] else ""),
            format_size(one["bytes"]),
            _percent(one["bytes"], changed),
        )
        for one in answer["files"]
    ]
    above = [(one["path"], format_size(one["bytes"]), _percent(one["bytes"], changed)) for one in answer["directories"]]
    return [
        f"{answer['point']}: {format_size(changed)} in changed chunks, {since}",
        table("WHAT", "BYTES", "SHARE", "", rows=parts),
        table("FILE", "BYTES", "SHARE", rows=files),
        table("DIRECTORY WITH ALL BELOW", "BYTES", "SHARE", rows=above),
        *answer["notes"],
    ]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
