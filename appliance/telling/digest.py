"""Several messages as one: what waited for the end of quiet hours, or for a way that was away."""

from collections.abc import Sequence

from appliance.telling.events import LINES, Event
from appliance.telling.kinds import GRAVITY

# Lines of each message in a digest, and messages that are named one by one.
_EACH = 6
_NAMED = 30


def merged(events: Sequence[Event]) -> Event:
    """One event of the gravest kind among at least one. Gravest first, then oldest first."""
    if len(events) == 1:
        return events[0]
    ordered = sorted(events, key=lambda event: (GRAVITY[event.kind], event.at))
    lines: list[str] = []
    for event in ordered[:_NAMED]:
        lines += [f"{event.at:%Y-%m-%d %H:%M} UTC  {event.title.removeprefix('Lanfree: ')}"]
        shown = [line for line in event.lines if line]
        lines += [f"    {line}" for line in shown[:_EACH]]
        if len(shown) > _EACH:
            lines += [f"    and {len(shown) - _EACH} lines more"]
    if len(ordered) > _NAMED:
        lines += [f"and {len(ordered) - _NAMED} messages more: see 'lanfree job history'"]
    first = min(event.at for event in events)
    return Event(
        kind=ordered[0].kind,
        about="several things",
        at=max(event.at for event in events),
        title=f"Lanfree: {len(events)} messages since {first:%Y-%m-%d %H:%M} UTC; first: "
        + ordered[0].title.removeprefix("Lanfree: "),
        lines=tuple(lines[: LINES * 12]),
        facts={"messages": [dict(event.facts) for event in ordered[:_NAMED]]},
    )
