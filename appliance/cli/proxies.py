"""``lanfree proxies``: who works on tasks, and over which fabrics."""

from typing import Annotated

import typer

from appliance import overview
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, table
from appliance.overview import ago
from appliance.reach import Fabric


@app.command("proxies")
def proxies(
    probe: Annotated[bool, typer.Option("--probe", help="Also try the fabrics from this machine now.")] = False,
) -> None:
    """The proxies of this site: alive or not, how busy, which fabrics they reach. Exit code 7 when one is silent."""
    settings = CONTEXT.settings()
    seen, takeover = overview.read(settings).glance, settings.proxy.takeover
    here: tuple[Fabric, ...] = ()
    if probe:
        with CONTEXT.services() as services:
            here = services.reach.paths()
    rows = [
        (
            proxy.machine,
            proxy.name,
            f"{ago(proxy.silent_for)} ago" + ("" if overview.alive(proxy, takeover) else ": silent"),
            ago((seen.at - proxy.started_at).total_seconds()),
            f"{sum(one.proxy == proxy.name for one in seen.doing)} of {proxy.slots}",
            proxy.version,
            ", ".join(proxy.paths) or "-",
        )
        for proxy in seen.proxies
    ]
    document = {
        "proxies": [{"alive": overview.alive(proxy, takeover), "proxy": proxy} for proxy in seen.proxies],
        "here": [{"path": path.name, "reached": path.reached, "why": path.why} for path in here],
    }
    shown = table("PROXY", "NAME", "HEARD OF", "UP", "TASKS", "VERSION", "REACHES", rows=rows)
    lines = [
        f"from here: {path.name} {'is reached' if path.reached else f'is NOT reached: {path.why}'}" for path in here
    ]
    CONTEXT.output.result(
        document, shown if rows else "no proxy serves: 'lanfree serve' makes this machine one", *lines
    )
    if any(not overview.alive(proxy, takeover) for proxy in seen.proxies) or any(not path.reached for path in here):
        raise typer.Exit(ATTENTION)
