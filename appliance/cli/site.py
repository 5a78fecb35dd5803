"""``lanfree init``, ``host``, ``doctor`` and ``sweep``: the appliance itself."""

from pathlib import Path
from typing import Annotated

import typer

from appliance import config
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import table
from proxy.errors import ConfigurationError

host = typer.Typer(no_args_is_help=True, help="Hypervisor hosts.")
app.add_typer(host, name="host")


@app.command()
def init(
    repository: Annotated[Path, typer.Option(help="Directory for the restore points.")] = config.DEFAULT_REPOSITORY,
    state: Annotated[Path, typer.Option(help="Directory for catalog and records.")] = config.DEFAULT_STATE,
) -> None:
    """Make a repository, and a configuration file if there is none. An existing repository is left as it is."""
    if not CONTEXT.path.exists():
        CONTEXT.path.parent.mkdir(parents=True, exist_ok=True)
        CONTEXT.path.write_text(config.new_text(repository.absolute(), state.absolute()))
        CONTEXT.path.chmod(0o600)
    with CONTEXT.services() as services:
        made = services.create_repository()
        where = services.settings.repository.path
    document = {"configuration": CONTEXT.path, "repository": where, "made": made}
    CONTEXT.output.result(
        document,
        f"configuration {CONTEXT.path}",
        f"repository    {where} {'made' if made else 'was there already, left as it is'}",
        "next: 'lanfree host add NAME URI', then 'lanfree vm list'",
    )


@host.command("add")
def add_host(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    uri: Annotated[str, typer.Argument(help="libvirt URI, for example qemu+ssh://root@host/system")],
    overlay_directory: Annotated[str, typer.Option(help="Path on the host for guest writes during a backup.")] = (
        "/var/lib/libvirt/images/lanfree"
    ),
    check: Annotated[bool, typer.Option(help="Connect before writing it down.")] = True,
) -> None:
    """Add a libvirt host to the configuration, after asking it for its machines."""
    settings = CONTEXT.settings()
    if any(known.name == name for known in settings.host):
        raise ConfigurationError(str(CONTEXT.path), f"there is a host {name} already", hint="choose another name")
    text = config.with_host(
        CONTEXT.path.read_text(), config.Host(name=name, uri=uri, overlay_directory=overlay_directory)
    )
    config.parse(text, CONTEXT.path)
    found = None
    if check:
        with CONTEXT.services() as services:
            found = services.try_host(name, uri, overlay_directory)
    CONTEXT.path.write_text(text)
    said = f", it has {found} machines" if found is not None else ", not tried"
    CONTEXT.output.result({"host": name, "uri": uri, "machines": found}, f"host {name} added{said}")


@host.command("list")
def list_hosts() -> None:
    """The configured hosts."""
    hosts = CONTEXT.settings().host
    CONTEXT.output.result(
        hosts, table("HOST", "URI", "OVERLAYS", rows=[(h.name, h.uri, h.overlay_directory) for h in hosts])
    )


@app.command()
def sweep() -> None:
    """Go on with interrupted runs, then remove what dead ones left on the hosts. Touches nothing that is not ours."""
    from appliance.workflows import running  # noqa: PLC0415

    with CONTEXT.services() as services, running(services) as (_, remarks):
        CONTEXT.output.result({"remarks": remarks}, *(remarks or ["nothing was left behind"]))
