"""``lanfree web``: API and console, and what the person at this machine needs to get into them."""

import os
import sys
from typing import Annotated

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, when

web = typer.Typer(invoke_without_command=True, help="API and console: serve them; one-time code; certificate.")
app.add_typer(web, name="web")


@web.callback()
def serve_web(
    context: typer.Context,
    parent: Annotated[int | None, typer.Option(hidden=True, help="End with this process.")] = None,
) -> None:
    """Serve API and console over TLS until told to end (SIGTERM). 'lanfree serve' does it beside the jobs."""
    if context.invoked_subcommand is not None:
        return
    from appliance.telling import logs  # noqa: PLC0415
    from appliance.web import server  # noqa: PLC0415  # brings FastAPI and the console

    CONTEXT.logs = True
    try:
        with CONTEXT.services() as services:
            logs.set_up(services.settings.log)
            why = server.run(services, parent=parent)
    finally:
        CONTEXT.logs = False
    if why is server.Ending.NEW_CONFIGURATION:
        again = ["--parent", str(parent)] if parent is not None else []
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(CONTEXT.path), "web", *again]
        os.execv(sys.executable, argv)  # noqa: S606  # itself again


@web.command("code")
def code() -> int:
    """The one-time code with which the first administrator is made, and where. Codes before it hold no more."""
    from appliance.web import access, listening, names  # noqa: PLC0415

    with CONTEXT.services() as services:
        settings = services.settings
        running = listening.found(settings.state.directory / "web")
        made = access.setup_code(services)
        address = running.url if running is not None else names.address_of(settings.web)
    document = {"address": address, "code": made, "running": running is not None}
    if made is None:
        _result(
            document,
            "there are users already, so there is no code any more",
            f"sign in at {address}; 'lanfree user reset-password NAME' gives somebody a new password",
        )
        return ATTENTION
    _result(
        document,
        f"console  {address}",
        f"code     {made}",
        "It makes the first administrator, once, within a day.",
        "The browser will not know the certificate: 'lanfree web fingerprint' shows the one that is right.",
    )
    if running is None:
        CONTEXT.output.warn("the console does not run: 'lanfree serve' or 'lanfree web' starts it")
    return 0


@web.command("fingerprint")
def fingerprint() -> None:
    """The certificate that browsers are shown, to be compared with what they show, and the authority that they may trust."""
    from appliance.web import names, tls  # noqa: PLC0415

    settings = CONTEXT.settings()
    shown = tls.identity(settings.web, settings.state.directory / "web")
    authority = tls.authority_fingerprint(shown)
    document = {
        "address": names.address_of(settings.web),
        "fingerprint": shown.fingerprint,
        "expires_at": shown.expires_at,
        "certificate": shown.certificate_file,
        "authority": shown.authority,
        "authority_fingerprint": authority,
    }
    lines = [f"certificate  {shown.fingerprint}  until {when(shown.expires_at)}  {shown.certificate_file}"]
    if shown.authority is not None:
        lines += [
            f"authority    {authority}  {shown.authority}",
            "Let browsers and clients trust the authority's file; the certificate is made anew by itself.",
        ]
    _result(document, *lines)


def _result(document: object, *lines: str) -> None:
    """Lines are not folded: what is in them is compared and copied."""
    CONTEXT.output.result(document)
    if not CONTEXT.output.as_json:
        for line in lines:
            CONTEXT.output.say(line)
