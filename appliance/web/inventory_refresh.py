"""The look at all hypervisors that a person asked for, as a task."""

from collections.abc import Callable, Mapping

from appliance import inventory
from appliance.serving.performing import Done
from appliance.wiring import Services
from proxy.errors import Cancelled


def refresh(
    services: Services,
    parameters: Mapping[str, object],
    *,
    cancelled: Callable[[], bool],
    progress: object,
    say: Callable[[str], None],
) -> Done:
    """What is silent is a problem of the task; all else was seen."""
    del parameters, progress
    if cancelled():
        raise Cancelled("the look at hypervisors")
    say("asking all hypervisors")
    seen = inventory.refresh(services)
    problems = tuple(f"{name} did not answer: {why}" for name, why in sorted(seen.silent.items()))
    return Done(problems=problems, result={"machines": seen.machines, "new": seen.new, "gone": seen.gone})
