"""``lanfree lab`` and ``lanfree demo``: the product on one machine, for newcomers and tests."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.output import table
from proxy.errors import Cancelled
from proxy.units import format_size

lab = typer.Typer(no_args_is_help=True, help="A real array, real hosts and real guests on loopback.")
app.add_typer(lab, name="lab")

Directory = Annotated[Path, typer.Option(help="Where the lab lives.")]
DEFAULT = Path("/var/lib/lanfree/lab")
CONFIGURATION = "lanfree.toml"


@lab.command("up")
def bring_up(
    directory: Directory = DEFAULT,
    machine: Annotated[list[str] | None, typer.Option(help="Machine to start; the demo's without.")] = None,
) -> None:
    """Bring the lab up and write a configuration for it."""
    from appliance.lab.lab import RUNNING, Lab  # noqa: PLC0415

    made = Lab.up(directory, machines=machine or RUNNING)
    place = made.directory / CONFIGURATION
    place.write_text(made.configuration())
    status = made.status()
    CONTEXT.output.result(
        {"configuration": place, "status": status},
        f"the lab runs in {made.directory}",
        f"next: export LANFREE_CONFIG={place}; lanfree init; lanfree vm list",
    )


@lab.command("down")
def take_down(directory: Directory = DEFAULT) -> None:
    """End the lab's processes and remove its files, its repository too."""
    from appliance.lab.lab import Lab  # noqa: PLC0415

    running = Lab.attach(directory)
    (running.directory / CONFIGURATION).unlink(missing_ok=True)
    running.down()
    CONTEXT.output.result({"down": directory}, f"the lab in {directory} is gone")


@lab.command("status")
def show_status(directory: Directory = DEFAULT) -> None:
    """Hosts, machines, LUNs and processes of the lab as they are now."""
    from appliance.lab.lab import Lab  # noqa: PLC0415

    status = Lab.attach(directory).status()
    hosts = [(h.name, "answers" if h.running else "silent", h.uri) for h in status.hosts]
    luns = [(n.number, format_size(n.size), format_size(n.allocated), n.path) for n in status.luns]
    CONTEXT.output.result(
        status,
        f"array {'runs' if status.array_running else 'does not run'}, portals {', '.join(status.portals)}",
        table("HOST", "STATE", "URI", rows=hosts),
        table("MACHINE", "HOST", "STATE", rows=[(m.name, m.host, m.state) for m in status.machines]),
        table("LUN", "SIZE", "ALLOCATED", "FILE", rows=luns),
    )


@app.command()
def demo(
    directory: Annotated[Path | None, typer.Option(help="Where the lab lives; a temporary place without.")] = None,
    keep: Annotated[bool, typer.Option(help="Leave the lab running afterwards, to look around.")] = False,
    console: Annotated[
        bool | None,
        typer.Option(help="Stay up with the console until Ctrl-C; so it is in a terminal, unless you say no."),
    ] = None,
) -> None:
    """The main job, for real, on the built-in lab; then its console. Ends with 4 if any of its claims did not hold."""
    from appliance.demo import run_demo  # noqa: PLC0415

    attached = sys.stdin.isatty() and sys.stdout.isatty() and not CONTEXT.output.as_json
    stays = attached if console is None else console
    result = run_demo(directory, keep=keep, say=CONTEXT.output.say, look=_look if stays else None)
    rows = [("yes" if c.holds else "NO", c.claim, c.figure) for c in result.claims]
    CONTEXT.output.result(result, "", table("HOLDS", "CLAIM", "FIGURE", rows=rows), f"{result.seconds:.0f} s in all")
    if not all(c.holds for c in result.claims):
        raise typer.Exit(4)


def _look() -> None:
    """Until the person at the terminal has looked enough."""
    with suppress(Cancelled):
        CONTEXT.cancelled.wait()
    CONTEXT.cancelled.clear()  # what ends the look does not end the demo at once: the lab is taken down
