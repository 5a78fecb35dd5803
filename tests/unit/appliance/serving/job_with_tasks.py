"""A job run with tasks in an appliance of its own, for what becomes of them when something comes between."""

from dataclasses import replace
from datetime import timedelta

from appliance.serving import scheduler
from appliance.serving.performing import Assigned
from appliance.wiring import Services
from catalog.jobs.policy import Policy
from catalog.jobs.values import JobRun, Task, TaskKind, TaskState


def begun(services: Services) -> JobRun:
    """A run that goes on, without tasks."""
    with services.jobs.transaction() as unit:
        job = unit.jobs.add("nightly", Policy(), services.clock.now())
    return scheduler.begin_now(services, job)


def add_task(services: Services, run: JobRun, machine: str = "m1", kind: TaskKind = TaskKind.BACKUP) -> str:
    """That waits; its id."""
    name = f"{run.id}-{kind.value}-{machine}"
    with services.jobs.transaction() as unit:
        unit.tasks.add([Task(name, run.id, kind, TaskState.WAITING, machine=machine, machine_name=machine)])
    return name


def claimed(services: Services, proxy: str, minutes: int = 0) -> Task:
    """By this proxy, so long ago."""
    moment = services.clock.now() - timedelta(minutes=minutes)
    with services.jobs.transaction() as unit:
        task = unit.tasks.claim(replace(services.proxy_facts(proxy), slots=2), moment, services.limits)
    assert task is not None
    return task


def assigned(services: Services, proxy: str = "p1") -> Assigned:
    """A task of a new run, that runs here."""
    run = begun(services)
    add_task(services, run)
    return Assigned(claimed(services, proxy), run)


def stop(services: Services, run: JobRun) -> None:
    """A person does."""
    with services.jobs.transaction() as unit:
        assert unit.runs.stop(run.id, services.clock.now())


def task_of(services: Services, id_: str) -> Task:
    """As it is now."""
    with services.jobs.transaction(write=False) as unit:
        found = unit.tasks.get(id_)
    assert found is not None
    return found
