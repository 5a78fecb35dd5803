"""The options that ``lanfree job add`` and ``job edit`` share: each one says a part of a policy."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal

import typer

from proxy.model import QuiescePolicy

Given = dict[str, Any]
"""Keys of a policy with dots -> what the options say, as for ``appliance.jobs.editing.changed``."""


def _which(
    select: Annotated[
        list[str] | None,
        typer.Option(
            help="Machines by rule: 'name=web-*', 'host=kvm1', 'folder=Prod, tag=backup:gold'. Any of several."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every machine.")] = False,
    besides: Annotated[list[str] | None, typer.Option("--except", help="But none that fit this rule.")] = None,
    exclude_disk: Annotated[list[str] | None, typer.Option(help="MACHINE:DISK, patterns both: 'db-*:vdc'.")] = None,
) -> Given:
    rules = [*(select or ()), *([""] if every else ())]
    return {
        "select.include": rules or None,
        "select.exclude": besides,
        "select.exclude_disks": exclude_disk,
    }


def _when(
    at: Annotated[list[str] | None, typer.Option(help="Time of day, as 22:00; several times for several.")] = None,
    days: Annotated[str | None, typer.Option(help="With --at: as mon-fri,sun.")] = None,
    cron: Annotated[str | None, typer.Option(help="Instead of --at: five fields.")] = None,
    missed: Annotated[
        Literal["run", "skip"] | None,
        typer.Option(help="A run whose time passed unnoticed: run it later (default), or skip it."),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Of all its times, as Europe/Berlin. A new job: this machine's.")
    ] = None,
    window: Annotated[
        list[str] | None, typer.Option(help="When it may work, as 22:00-06:00 or 'sat,sun 08:00-20:00'.")
    ] = None,
) -> Given:
    if cron is not None and (at or days):
        raise typer.BadParameter("either --cron, or --at with --days")
    # Each text of days is a list of them (mon-fri,sun): the policy reads it.
    return {
        "schedule.cron": cron,
        "schedule.at": list(at) if at else None,
        "schedule.days": days or None,
        "schedule.missed": missed,
        "zone": zone,
        "window": window,
    }


def _kept(
    keep_last: Annotated[int | None, typer.Option(min=0, help="Restore points of each machine: the newest.")] = None,
    keep_days: Annotated[int | None, typer.Option(min=0, help="All that are not older.")] = None,
    keep_daily: Annotated[int | None, typer.Option(min=0, help="The newest of so many days.")] = None,
    keep_weekly: Annotated[int | None, typer.Option(min=0, help="… of so many weeks.")] = None,
    keep_monthly: Annotated[int | None, typer.Option(min=0, help="… of so many months.")] = None,
    keep_yearly: Annotated[int | None, typer.Option(min=0, help="… of so many years.")] = None,
    copy_to: Annotated[list[str] | None, typer.Option(help="Copy new points there: name of a [[copy_to]].")] = None,
) -> Given:
    return {
        "retention.last": keep_last,
        "retention.days": keep_days,
        "retention.daily": keep_daily,
        "retention.weekly": keep_weekly,
        "retention.monthly": keep_monthly,
        "retention.yearly": keep_yearly,
        "copy_to": [{"name": each} for each in copy_to] if copy_to else None,
    }


def _how(
    quiesce: Annotated[QuiescePolicy | None, typer.Option(help="What to ask of the guests.")] = None,
    transport: Annotated[list[str] | None, typer.Option(help="san, raw or lan, in order of preference.")] = None,
    active_full: Annotated[
        int | None, typer.Option(min=0, help="Read everything anew once in so many days; 0: never.")
    ] = None,
    verify: Annotated[
        int | None, typer.Option(min=0, help="Read restore points back once in so many days; 0: never.")
    ] = None,
    objective: Annotated[float | None, typer.Option(help="Hours within which each machine is to be protected.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="Machines of this job at once.")] = None,
    priority: Annotated[int | None, typer.Option(help="Jobs with larger ones go first.")] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
) -> Given:
    return {
        "quiesce": quiesce.value if quiesce else None,
        "transports": transport,
        "active_full.days": active_full,
        "verify.days": verify,
        "objective": objective,
        "parallel": parallel,
        "priority": priority,
        "description": description,
    }


_PARTS = (_which, _when, _kept, _how)
"""What the options of each say of a policy, ``None`` where they say nothing. In the help's order."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options beside its own; it gets what they say as ``given``."""
    own = inspect.signature(command).parameters
    shared = {part: inspect.signature(part).parameters for part in _PARTS}

    @wraps(command)
    def run(**words: Any) -> None:
        said: Given = {}
        for part, options in shared.items():
            said |= part(**{name: words.pop(name) for name in options})
        command(given={key: value for key, value in said.items() if value is not None}, **words)

    parameters = [each for each in own.values() if each.name != "given"]
    parameters += [each for options in shared.values() for each in options.values()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what Typer reads
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
