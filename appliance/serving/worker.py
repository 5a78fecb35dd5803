"""Works on tasks: claims what may run now, begins it in the engine, and looks after what runs.

The worker decides nothing that has to survive it: a claim is a transaction, the work a durable workflow under the claim's run
id, and the task's end part of that workflow. What lies between two of these and was cut off is found by ``mending``.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from appliance.serving.controls import StopCause
from appliance.serving.performing import stopped
from appliance.wiring import Services
from appliance.workflows import Workflows
from catalog.jobs.values import Task

log = logging.getLogger("lanfree.worker")

Closed = Callable[[], Collection[str]]
"""Keys under which nothing should begin now."""


class Worker:
    """One a process. ``name``: of its engine. ``only``: a job run that it works on and no other. Its calls come from one thread
    and raise what the job store raises."""

    def __init__(
        self,
        services: Services,
        workflows: Workflows,
        *,
        closed: Sequence[Closed] = (),
        only: str | None = None,
    ) -> None:
        self._services = services
        self._workflows = workflows
        self._closed = (services.closures.closed, *closed)
        self._only = only

    def look_after(self) -> Sequence[Task]:
        """Tell how far running tasks are, and end those whose time is over; the tasks that run here."""
        services, name = self._services, self._workflows.name
        with services.jobs.transaction(write=False) as unit:
            ours = [task for task in unit.tasks.running() if task.proxy == name]
            runs = {task.job_run: unit.runs.get(task.job_run) for task in ours if task.job_run}
        now = services.clock.now()
        done: dict[str, tuple[int, int]] = {}
        phases: dict[str, str] = {}
        for task in ours:
            control = services.controls.of(task.run)
            run = runs.get(task.job_run)
            if task.stop_at is not None or stopped(run):
                control.stop(StopCause.PERSON)
            elif task.job_run and task.deadline is not None and task.deadline <= now:
                control.stop(StopCause.WINDOW)
            if (*control.done(), control.phase) != (task.done_bytes, task.total_bytes, task.phase):
                done[task.id], phases[task.id] = control.done(), control.phase
        if done:
            with services.jobs.transaction() as unit:
                unit.tasks.progress(done, phases)
        return ours

    def claim(self) -> int:
        """Take waiting tasks while there is room, and begin them. How many."""
        services, begun = self._services, 0
        while not services.cancelled.is_set() and services.controls.sure():
            task = self._claimed()
            if task is None:
                break
            self._begin(task)
            begun += 1
        return begun

    def mend(self) -> Sequence[Task]:
        """See ``appliance.serving.mending``."""
        return self._workflows.mend()

    def _claimed(self) -> Task | None:
        services = self._services
        closed = frozenset[str]().union(*(keys() for keys in self._closed))
        facts = replace(services.proxy_facts(self._workflows.name), slots=services.slots)
        with services.jobs.transaction() as unit:
            return unit.tasks.claim(facts, services.clock.now(), services.limits, closed=closed, only=self._only)

    def _begin(self, task: Task) -> None:
        log.info(
            "%s began, attempt %d",
            " ".join(part for part in (task.kind.value, task.machine_name or task.target) if part),
            task.attempt,
            extra={"event": "task-began", "run": task.run, "job_run": task.job_run, "machine": task.machine_name},
        )
        self._workflows.perform(task.id, task.run)
