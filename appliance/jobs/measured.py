"""Backups that measured something: what ``lanfree impact`` and the API show of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog.jobs.values import Task
from proxy.errors import JobRunNotFound, NoSuchMachine
from proxy.model import MachineId

if TYPE_CHECKING:
    from catalog.jobs.store import Unit

WHEN = ("before", "during", "after")


def newest(
    unit: "Unit", machine: str, run: str, last: int, sees: Callable[[MachineId, str], bool] = lambda _id, _name: True
) -> Sequence[Task]:
    """Those that measured something, newest first. ``machine``: of this one, by name or identity; ``run``: of this job run;
    empty for any. ``sees``: whether whoever asks may know of a machine. No host is asked. Raises ``JobRunNotFound``,
    ``NoSuchMachine``."""
    if run:
        if unit.runs.get(run) is None:
            raise JobRunNotFound(run, [each.id for each in unit.runs.list(limit=5)])
        found = list(unit.tasks.of_run(run))
    else:
        found = list(unit.tasks.list(limit=10 * last if machine else last))
    found = [task for task in found if sees(task.machine, task.machine_name)]
    if machine:
        found = [task for task in found if machine in (task.machine, task.machine_name)]
        if not found:
            raise NoSuchMachine(machine, "no backup of one was recorded by a job")
    return [task for task in found if task.measures and task.machine][:last]


def part(measures: object, name: str) -> Mapping[str, Any]:
    """A mapping in a mapping; empty where there is none: older runs measured less."""
    found = measures.get(name) if isinstance(measures, Mapping) else None
    return found if isinstance(found, Mapping) else {}
