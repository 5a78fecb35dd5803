"""Tasks of a job run that are about the repository: copies, verification, retention with collection. To do one again is to go
on with it."""

from appliance.serving.performing import Assigned, Done
from appliance.wiring import Services
from catalog.jobs.values import TaskKind
from proxy.errors import LanfreeError


def keep_up(services: Services, assigned: Assigned) -> Done:
    """Do it. Raises ``Cancelled``, and what stops all of it; what concerns one restore point is among the problems."""
    kinds = {TaskKind.COPY: _copy, TaskKind.VERIFY: _verify, TaskKind.PRUNE: _prune}
    work = kinds.get(assigned.task.kind)
    if work is None:
        raise LanfreeError(f"tasks of kind {assigned.task.kind.value} are not known to this version")
    return work(services, assigned)


def _copy(services: Services, assigned: Assigned) -> Done:
    from appliance.keeping.copying import copy_run, job_points  # noqa: PLC0415  # each brings its own part of the repository
    from appliance.keeping.maintenance import remembered_copy  # noqa: PLC0415

    name = assigned.task.target
    control = services.controls.of(assigned.task.run)
    newest = next((copy.newest for copy in assigned.policy.copy_to if copy.name == name), None)
    job = assigned.job_run.job if assigned.job_run is not None else ""
    points = job_points(services, job, assigned.job_name, newest)
    # One that was there is away when it is not found, and the directory where it was mounted is empty.
    make = not remembered_copy(services, name)
    done = copy_run(services, name, points, make=make, cancelled=control.cancelled, progress=control.note)
    return Done(problems=done.problems, measures={"copied": len(done.copied)})


def _verify(services: Services, assigned: Assigned) -> Done:
    from appliance.keeping.verifying import verify_due, verify_run  # noqa: PLC0415

    control = services.controls.of(assigned.task.run)
    with services.jobs.transaction(write=False) as unit:
        machines = {task.machine for task in unit.tasks.of_run(assigned.task.job_run) if task.machine}
    due = verify_due(services, machines, assigned.policy.verify.days)
    report = verify_run(services, due, cancelled=control.cancelled, progress=control.note)
    problems = tuple(f"damaged: {damage}" for damage in report.damage)
    return Done(problems=problems, measures={"verified": report.points, "bytes_checked": report.bytes_checked})


def _prune(services: Services, assigned: Assigned) -> Done:
    from appliance.keeping.pruning import prune_run  # noqa: PLC0415

    control = services.controls.of(assigned.task.run)
    done = prune_run(services, assigned.task.target, cancelled=control.cancelled, progress=control.note)
    removed = sum(line.removed for line in done.lines)
    measures: dict[str, object] = {"removed": removed, "kept": len(done.lines) - removed}
    return Done(problems=done.problems, measures=measures)
