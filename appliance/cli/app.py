"""The ``lanfree`` command: its options for all commands, and what happens to errors."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from appliance import config
from appliance.cli.commands import SERVER
from appliance.cli.output import INTERNAL, Output
from proxy.errors import Cancelled, ConfigurationError, LanfreeError

if TYPE_CHECKING:
    from api.client import Client
    from appliance.wiring import Services
    from appliance.workflows import Workflows

app = typer.Typer(
    name="lanfree",
    help="Back up virtual machines over the SAN, without agents and without the hosts in the data path.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class Context:
    """What every command gets: where to speak, and the configuration, read when it is first needed."""

    output: Output
    path: Path
    cancelled: threading.Event
    engaged: bool = False
    """Whether runs are under way, which end themselves when ``cancelled`` is set."""
    logs: bool = False
    """Whether stderr is a log, whose lines programs read."""
    server: str | None = None
    """Address of the appliance that is asked, in place of the one that this process is part of."""

    def settings(self) -> config.Settings:
        """Raises ``ConfigurationError``."""
        return config.load(self.path)

    def services(self) -> "Services":
        """The wired appliance. Imported late: bindings of hypervisors take a moment that ``--help`` need not wait for."""
        from appliance.wiring import Services  # noqa: PLC0415

        return Services(self.settings(), self.cancelled)

    def asking(self) -> "Client":
        """The API of ``server``, as whoever signed in there. Raises ``ConfigurationError`` where nobody did."""
        from appliance.cli.remote.asking import client_of  # noqa: PLC0415  # see services

        return client_of(self.server or "")

    @contextmanager
    def running(self, services: "Services", *, urgent: bool = False) -> Iterator[tuple["Workflows", list[str]]]:
        """The workflow engine, and what it found on starting (told at once, too); see ``appliance.workflows.running``."""
        from appliance.workflows import running  # noqa: PLC0415

        remarks: list[str] = []

        def say(remark: str) -> None:
            remarks.append(remark)
            self.output.warn(remark)

        self.engaged = True
        try:
            with running(services, say, urgent=urgent) as workflows:
                yield workflows, remarks
        finally:
            self.engaged = False


CONTEXT = Context(Output(as_json=False), config.path_of(None), threading.Event())
"""Of this process; Typer's own context object is untyped."""


@app.callback()
def _options(
    config_file: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for other programs.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="URL", envvar=SERVER, help="Ask that appliance, see 'lanfree login'."),
    ] = None,
) -> None:
    CONTEXT.output = Output(as_json=as_json)
    CONTEXT.server = server
    CONTEXT.path = config.path_of(config_file)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, stream=sys.stderr)


def run() -> int:
    """Run the command line of this process; returns the exit code."""
    try:
        code = app(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except LanfreeError as error:
        return CONTEXT.output.error(error)
    except BrokenPipeError:  # the reader has seen enough; stdout is pointed elsewhere, or its end complains again
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:  # the place, not the program
        why = error.strerror or str(error)
        hint = "check that it exists, is writable and has room; lanfree runs as root"
        return CONTEXT.output.error(ConfigurationError(str(error.filename or "system"), why, hint=hint))
    except typer.Exit as done:
        return done.exit_code
    except typer.Abort:
        return 3
    except typer.TyperException as error:
        CONTEXT.output.notes.print(f"usage: {error}; see 'lanfree --help'", markup=False, soft_wrap=True)
        return 2
    except Exception as error:  # the last door: people get a sentence, not a wall of text
        logging.debug("unexpected", exc_info=True)
        CONTEXT.output.notes.print(f"a fault in Lanfree: {type(error).__name__}: {error}", markup=False)
        CONTEXT.output.notes.print("please report it with the output of the same command and --verbose", style="dim")
        return INTERNAL


def heed_signals() -> None:
    """From now on SIGINT and SIGTERM end commands cleanly: runs at their next chunk, whatever else at once."""
    signal.signal(signal.SIGINT, _end_cleanly)
    signal.signal(signal.SIGTERM, _end_cleanly)


def _end_cleanly(number: int, _frame: FrameType | None) -> None:
    """The first signal asks a run to end at the next chunk and to tidy up; the second ends the process now. Where no run
    is under way the command itself ends, and what it holds is closed on the way out."""
    if CONTEXT.cancelled.is_set():
        os._exit(128 + number)
    CONTEXT.cancelled.set()
    if not CONTEXT.engaged:
        raise Cancelled("the command")
    if not CONTEXT.logs:
        CONTEXT.output.note("ending after the current chunk; once more to end at once")
