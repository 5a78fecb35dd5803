"""``lanfree init``, ``host``, ``doctor`` and ``sweep``: the appliance itself."""

from pathlib import Path
from typing import Annotated

import typer

from appliance import config, config_editing, operations
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, table
from appliance.config_file import ConfigurationFile
from proxy.errors import ConfigurationError

host = typer.Typer(no_args_is_help=True, help="Hypervisor hosts.")
app.add_typer(host, name="host")


@app.command()
def init(
    repository: Annotated[Path, typer.Option(help="Directory for the restore points.")] = config.DEFAULT_REPOSITORY,
    state: Annotated[Path, typer.Option(help="Directory for catalog and records.")] = config.DEFAULT_STATE,
    key_file: Annotated[
        Path | None,
        typer.Option(help="File with the repository's key; made if missing. Default: beside the configuration."),
    ] = None,
    passphrase_file: Annotated[Path | None, typer.Option(help="File with a passphrase, instead of a key file.")] = None,
    unencrypted: Annotated[bool, typer.Option(help="Whoever reads the storage may read every disk.")] = False,
) -> None:
    """Make a repository, and a configuration file if there is none. An existing repository is left as it is."""
    if not CONTEXT.path.exists():
        CONTEXT.path.parent.mkdir(parents=True, exist_ok=True)
        if key_file is None and passphrase_file is None and not unencrypted:
            key_file = CONTEXT.path.parent / "repository.key"
        section = config.Repository(
            path=repository.absolute(),
            key_file=key_file.absolute() if key_file else None,
            passphrase_file=passphrase_file.absolute() if passphrase_file else None,
            unencrypted=unencrypted,
        )
        CONTEXT.path.touch(0o600)
        CONTEXT.path.write_text(config_editing.new_text(section, state.absolute()))
    with CONTEXT.services() as services:
        made = services.make_repository()
        section, known = services.settings.repository, services.settings
    where = section.place
    key = section.key_file or section.passphrase_file
    document = {"configuration": CONTEXT.path, "repository": where, "made": made, "key": key}
    CONTEXT.output.result(
        document,
        f"configuration {CONTEXT.path}",
        f"repository    {where} {'made' if made else 'was there already, left as it is'}",
        f"key           {key}: nobody can restore without it; 'lanfree key paper' prints it for the safe"
        if key
        else "key           none: whoever reads the storage reads every disk",
        "next: 'lanfree vm list'"
        if known.host or known.vcenter
        else "next: 'lanfree host add NAME URI', then 'lanfree vm list'; in a browser: 'lanfree serve' and 'lanfree web code'",
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
    if any(known.name == name for known in CONTEXT.settings().host):
        raise ConfigurationError(str(CONTEXT.path), f"there is a host {name} already", hint="choose another name")
    entry = config.Host(name=name, uri=uri, overlay_directory=overlay_directory)
    found = None
    if check:
        with CONTEXT.services() as services:
            found = operations.try_host(services, entry)
    ConfigurationFile(CONTEXT.path).add(entry)
    said = f", it has {found} machines" if found is not None else ", not tried"
    CONTEXT.output.result({"host": name, "uri": uri, "machines": found}, f"host {name} added{said}")


@host.command("list")
def list_hosts() -> None:
    """The configured hosts."""
    hosts = CONTEXT.settings().host
    CONTEXT.output.result(
        [host.model_dump(mode="json") for host in hosts],
        table("HOST", "URI", "OVERLAYS", rows=[(h.name, h.uri, h.overlay_directory) for h in hosts]),
    )


@app.command()
def sweep() -> None:
    """Go on with interrupted runs, then remove what dead ones left on the hosts. Touches nothing that is not ours."""
    with CONTEXT.services() as services, CONTEXT.running(services) as (_, remarks):
        CONTEXT.output.result({"remarks": remarks}, *(remarks or ["nothing was left behind"]))


catalog = typer.Typer(no_args_is_help=True, help="The index of restore points and files.")
app.add_typer(catalog, name="catalog")


@catalog.command("rebuild")
def rebuild(
    files: Annotated[bool, typer.Option(help="Record the files of all restore points, too.")] = True,
) -> None:
    """Make the catalog again from the repository: the list of restore points, and the files that they hold."""
    from appliance.cli.recording import record  # noqa: PLC0415  # a list alone is made without the engine

    with CONTEXT.services() as services:
        missing = operations.rebuild_catalog(services)
        known = len(operations.points_of(services, None))
        reports = record(services, missing)[0] if files else []
    left = [point for point in missing if point not in {report.point for report in reports}]
    lines = [f"{known} restore points listed, {len(left)} without their files"]
    lines += [f"  lanfree files index {point}" for point in left]
    CONTEXT.output.result({"points": known, "recorded": reports, "not_indexed": left}, *lines)
    if files and left:
        raise typer.Exit(ATTENTION)


@app.command()
def doctor(
    deep: Annotated[bool, typer.Option(help="Really start a libguestfs appliance (10 to 40 seconds).")] = False,
    lab: Annotated[bool, typer.Option(help="Look at what the built-in lab needs, too.")] = False,
) -> None:
    """Check this machine and what is configured. Each failure has its one-line remedy."""
    from appliance import doctor as surgery  # noqa: PLC0415
    from appliance.checks import configured  # noqa: PLC0415

    settings = CONTEXT.settings() if CONTEXT.path.exists() else None
    site = surgery.site_of(settings, lab=lab, launch=deep) if settings else surgery.Site(lab=lab, launch=deep)
    results = []
    for result in surgery.diagnose(site, extra=configured(settings)):
        results.append(result)
        remedy = f"  to do: {result.remedy}" if result.remedy else ""
        CONTEXT.output.say(f"{result.outcome.value:<4} {result.check}: {result.detail}{remedy}")
    CONTEXT.output.result(results)
    worst = surgery.worst(results)
    if worst is not surgery.Outcome.OK:
        raise typer.Exit(1 if worst is surgery.Outcome.FAIL else ATTENTION)
