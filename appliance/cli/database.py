"""``lanfree database``: where catalog, audit log and jobs are kept."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from appliance import config
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import table
from proxy.errors import ConfigurationError

database = typer.Typer(no_args_is_help=True, help="The databases of this appliance.")
app.add_typer(database, name="database")


@database.command("copy")
def copy(
    to: Annotated[str, typer.Option(help="postgresql+psycopg://USER@HOST/DATABASE, without a password.")],
    password_file: Annotated[Path | None, typer.Option(help="A file with its password, 0600.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Directory with SQLite files, in place of this appliance's databases.")
    ] = None,
    busy: Annotated[
        bool, typer.Option(help="Copy although a proxy seems to be at work: what it does now is lost.")
    ] = False,
) -> None:
    """Copy catalog, audit log, jobs and kept keys to an empty PostgreSQL, to grow from one proxy to several. Stop the service
    first. What is here stays as it is; the configuration is yours to change."""
    from appliance.protection import growing  # noqa: PLC0415  # see protect

    target = CONTEXT.settings().model_copy(update={"database": _section(to, password_file)})
    with CONTEXT.services() as services:
        if source is not None and not (source / "catalog.db").is_file():
            raise ConfigurationError(str(source), "there is no catalog.db")
        copied = growing.grow(services, target, source=source, busy=busy)
    CONTEXT.output.result(
        copied,
        table("TABLE", "ROWS", rows=sorted(copied.rows.items())),
        f"{copied.kept} records of kept keys and of the hosts' drivers",
        "every count was compared. Next: [database] in the configuration of every proxy, then start the services:",
        f'  url = "{to}"' + (f'\n  password_file = "{password_file}"' if password_file else ""),
    )


def _section(url: str, password_file: Path | None) -> config.Database:
    """Raises ``ConfigurationError``; the address itself may hold a password, so it is not said again."""
    try:
        return config.Database(url=url, password_file=password_file)
    except ValidationError as error:
        raise ConfigurationError(
            "--to", error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        ) from None
