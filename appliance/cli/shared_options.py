"""Options that commands have in common with those of the same name that ask a server (``appliance.cli.remote``): said once, so
that nobody has to learn two."""

from datetime import datetime
from typing import Annotated

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from catalog.patterns import Kind
from mounter.ports import FileType

_SIZE = TypeAdapter(ByteSize)
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]


def _size(text: str) -> int:
    try:
        return int(_SIZE.validate_python(text))
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is no size: write 500, 20MB or 1GiB") from None


Point = Annotated[str, typer.Argument(metavar="POINT", help="Restore point; the beginning of its id is enough.")]
Machine = Annotated[str, typer.Argument(metavar="MACHINE", help="By name or identity; it need not exist any more.")]
FilePath = Annotated[str, typer.Argument(metavar="PATH", help="As the guest names it: /etc/hosts, C:/pagefile.sys")]
GuestPaths = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="As the guest names them; folders with all in them.")
]

# files find
Pattern = Annotated[str, typer.Argument(help="Part of a path, or a glob (*.conf); case does not matter. Empty: any.")]
OfMachines = Annotated[list[str] | None, typer.Option("--machine", help="Only these machines, by name or identity.")]
InPoint = Annotated[str | None, typer.Option("--point", help="As it is in this restore point.")]
Meant = Annotated[Kind, typer.Option("--kind", help="How the pattern is meant.")]
Types = Annotated[list[FileType] | None, typer.Option("--type", help="Only such entries.")]
MinSize = Annotated[
    int | None, typer.Option("--min-size", parser=_size, metavar="SIZE", help="At least: 500, 20MB, 1GiB.")
]
MaxSize = Annotated[int | None, typer.Option("--max-size", parser=_size, metavar="SIZE", help="At most.")]
Since = Annotated[datetime | None, typer.Option("--since", formats=_FORMATS, help="Changed then or later.")]
Until = Annotated[datetime | None, typer.Option("--until", formats=_FORMATS, help="Changed before.")]
Deleted = Annotated[bool, typer.Option(help="Only what its machine does not have any more.")]
AllVersions = Annotated[bool, typer.Option(help="Every version of each file, not only the newest.")]
AtMost = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]

# files get, push, growth
Version = Annotated[
    int | None, typer.Option(min=1, help="So old a version of one file: 1 the newest, 2 the one before.")
]
FullPaths = Annotated[bool, typer.Option(help="Keep the guest's whole path, not only the last name.")]
IntoGuest = Annotated[
    str, typer.Option("--to", metavar="MACHINE:DIRECTORY", help="A running machine, and where in it.")
]
Overwrite = Annotated[bool, typer.Option(help="Replace files of the guest that are not the same.")]
FromPoint = Annotated[str | None, typer.Option("--from", help="Restore point; the oldest recorded one without.")]
ToPoint = Annotated[str | None, typer.Option("--to", help="Restore point; the newest recorded one without.")]
Under = Annotated[str, typer.Option(help="Only this directory, and all below it.")]
Several = Annotated[int, typer.Option("--limit", min=1, help="So many files and directories.")]

# verify
Share = Annotated[
    float, typer.Option(min=0.0001, max=1, help="Read only this share of the packs, the longest unread first.")
]
Deep = Annotated[
    bool,
    typer.Option("--deep/--quick", help="Also decompress each chunk. Quick finds every byte that changed since."),
]

# restore
Places = Annotated[
    list[str],
    typer.Option(
        "--disk", help="Where a disk goes: KEY=TARGET_IQN/LUN, KEY=/path, or KEY=[DATASTORE]. Once for each disk."
    ),
]
OnHost = Annotated[str, typer.Option("--host", help="Host to define the machine on.")]
NewName = Annotated[str, typer.Option("--as", help="Restore beside the original, under this name.")]
OverPlaces = Annotated[bool, typer.Option(help="What the named disks hold now may be lost.")]
Connected = Annotated[bool, typer.Option(help="Leave the network links up.")]
DisksOnly = Annotated[bool, typer.Option("--disks-only", help="Write the disks, define no machine.")]
WithoutHosts = Annotated[
    list[str] | None, typer.Option("--without-host", help="This host is dead: nothing runs there.")
]
Unidentified = Annotated[
    bool, typer.Option(help="Machines whose disks cannot be told apart do not live on the named places.")
]
Differential = Annotated[bool, typer.Option(help="Read the places first, write only what differs; needs --overwrite.")]
Compare = Annotated[bool, typer.Option(help="Read every disk back and compare it with the restore point.")]
Folder = Annotated[str, typer.Option(help="vSphere: folder, by its path, if not the saved one.")]
Pool = Annotated[str, typer.Option(help="vSphere: resource pool, by its path, if not the saved one.")]
Networks = Annotated[list[str] | None, typer.Option("--network", help="vSphere: SAVED=NEW, a network for another.")]
Attach = Annotated[str, typer.Option(help="vSphere: give the one disk to this machine, beside its own.")]

# copy
CopyTo = Annotated[str, typer.Argument(help="Which [[copy_to]] of the configuration.")]
CopyFrom = Annotated[
    str,
    typer.Option("--from", metavar="NAME", help="Copy from this [[copy_from]] into our own repository instead."),
]
OnlyMachines = Annotated[list[str] | None, typer.Option("--machine", help="Only this machine, by name or identity.")]
OnlyPoints = Annotated[list[str] | None, typer.Option("--point", help="Only this restore point.")]
Newest = Annotated[int | None, typer.Option(min=1, help="Only so many newest of each machine.")]
MadeSince = Annotated[datetime | None, typer.Option("--since", help="Only what was made since then, in UTC.")]
ReadBack = Annotated[bool, typer.Option(help="Read each copy back and compare it before it counts.")]
