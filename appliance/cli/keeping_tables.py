"""How commands print what was done to restore points: those of this machine and those that ask a server print the same. Lines
are those of ``appliance.keeping.lines``."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from appliance.cli.output import table
from proxy.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

NOT_ENABLED = "[protect] enabled is false: nothing was done"


def prune_table(lines: "Iterable[Mapping[str, Any]]") -> "RenderableType":
    """What the rules say of each restore point."""
    rows = [(line["machine"], line["point"], line["verdict"], line["rules"] or "-", line["why"]) for line in lines]
    return table("MACHINE", "RESTORE POINT", "", "RULES OF", "WHY", rows=rows)


def repair_lines(lines: "Sequence[Mapping[str, Any]]") -> "list[RenderableType]":
    """What became of each damage."""
    if not lines:
        return ["no damage", ""]
    rows = [
        (line["machine"], line["point"], line["disk"] or "all", format_size(line["mended"]), line["why"] or "mended")
        for line in lines
    ]
    return [
        table("MACHINE", "RESTORE POINT", "DISK", "MENDED", "", rows=rows),
        "next: 'lanfree verify', which sets the health of restore points",
    ]


def audit_lines(
    lines: "Sequence[Mapping[str, Any]]", notes: int, unreadable: Iterable[str], published: Iterable[str]
) -> "list[RenderableType]":
    """What does not fit into the chains, and what witnesses said."""
    rows = [(line["trouble"], line["machine"], line["point"], line["why"]) for line in lines]
    return [
        table("", "MACHINE", "RESTORE POINT", "WHY", rows=rows) if rows else "every chain is whole",
        f"{notes} notes of witnesses compared",
        *(f"not a note: {line}" for line in unreadable),
        *(f"noted by {place}" for place in published),
    ]


def protect_lines(lines: "Iterable[Mapping[str, Any]]", size: int, files: int) -> "list[RenderableType]":
    """What became of the appliance's own state in each repository."""
    rows = [
        (
            line["repository"],
            line["point"] or "none",
            line["outcome"],
            format_size(line["bytes_stored"]),
            line["removed"],
        )
        for line in lines
    ]
    return [
        table("REPOSITORY", "RESTORE POINT", "", "STORED", "REMOVED", rows=rows),
        f"{format_size(size)}: the configuration, {files} files that it names, the databases",
    ]
