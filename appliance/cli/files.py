"""``lanfree files``: the files inside restore points."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.output import table
from appliance.workflows import running
from mounter.ports import FileEntry, shown
from proxy.units import format_size

files = typer.Typer(no_args_is_help=True, help="Files inside restore points: index, list, find, get.")
app.add_typer(files, name="files")

Point = Annotated[str, typer.Argument(metavar="POINT", help="Restore point; the beginning of its id is enough.")]
