"""``lanfree notify``: ways to people, and whether they work."""

from typing import Annotated

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.output import exit_code, gravest, table
from appliance.telling import events
from proxy.errors import ConfigurationError, LanfreeError

notify = typer.Typer(no_args_is_help=True, help="Ways to people: mail, chat, webhooks, syslog.")
app.add_typer(notify, name="notify")


@notify.command("test")
def test(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of a [[notify]]; all, if none is said.")] = None,
) -> int:
    """Send a test message at once, past quiet hours."""
    with CONTEXT.services() as services:
        telling = services.telling
        if name is not None and name not in telling.names:
            raise ConfigurationError("[[notify]]", f"there is none called {name!r}", hint=_known(telling.names))
        if not telling.names:
            raise ConfigurationError(
                "[[notify]]",
                "there is none: nobody is told anything",
                hint="OPERATING.md, 'Telling people', shows some",
            )
        event = events.trial(services.clock.now())
        results: list[tuple[str, LanfreeError | None]] = []
        for way in [name] if name else telling.names:
            try:
                telling.try_now(way, event)
            except LanfreeError as error:
                results.append((way, error))
            else:
                results.append((way, None))
    CONTEXT.output.result(
        [{"name": way, "told": error is None, "why": error.message if error else ""} for way, error in results],
        table("WAY", "TOLD", "", rows=[(way, "no" if error else "yes", _why(error)) for way, error in results]),
    )
    return gravest(exit_code(error) for _, error in results if error is not None)


@notify.command("list")
def list_ways() -> None:
    """Ways, what they are told, and how many messages wait for them."""
    with CONTEXT.services() as services:
        sections = services.settings.notify
        waiting = {section.name: services.telling.waiting(section.name) for section in sections}
    CONTEXT.output.result(
        [
            {
                "name": section.name,
                "kind": section.kind,
                "events": [kind.value for kind in section.events],
                "jobs": list(section.jobs),
                "waiting": len(waiting[section.name]),
                "attempts": max((message.attempts for message in waiting[section.name]), default=0),
            }
            for section in sections
        ],
        table(
            *("WAY", "KIND", "EVENTS", "JOBS", "WAITING"),
            rows=[
                (s.name, s.kind, " ".join(s.events), " ".join(s.jobs) or "all", len(waiting[s.name])) for s in sections
            ],
        ),
    )


def _why(error: LanfreeError | None) -> str:
    return "" if error is None else f"{error.message}{'; ' + error.hint if error.hint else ''}"


def _known(names: tuple[str, ...]) -> str:
    return f"there are: {', '.join(names)}" if names else "OPERATING.md, 'Telling people', shows some"
