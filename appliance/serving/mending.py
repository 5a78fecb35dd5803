"""Tasks that say they run and are nobody's: their process died between two transactions, or with what a person began, or it
lives and could not write down how they ended."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from appliance.serving import performing, wishes
from appliance.serving.engine import Engine, Stage
from appliance.serving.performing import Assigned, told_to_end
from appliance.wiring import Services
from catalog.jobs.store import Unit
from catalog.jobs.values import Task, TaskKind, TaskState
from proxy.errors import LanfreeError
from proxy.model import Reason, ReasonCode, RestorePointId

STUCK = timedelta(seconds=60)
"""How old a claim of a living process is that never became a run, or whose run ended and the claim did not: the database was
away in between."""


def mend(services: Services, engine: Engine) -> Sequence[Task]:
    """Put back what was claimed and never begun, and end what ended without a word; those tasks, as they were. What an engine
    goes on with is left alone."""
    # First the tasks, then who lives: who claims meanwhile is not taken for dead.
    with services.jobs.transaction(write=False) as unit:
        running = unit.tasks.running()
    if not running:
        return ()
    living = engine.liveness.living()
    before = services.clock.now() - STUCK
    doubtful = [task for task in running if task.proxy not in living]
    ours = [task for task in running if task.proxy == engine.name and not task.by_hand]
    doubtful += [task for task in ours if (task.claimed_at or before) <= before]
    # Last the stages: a run that has ended by now wrote the end of its task before that, if it could.
    stages = engine.stages(task.run for task in doubtful)
    return [task for task in doubtful if _mended(services, engine, task, stages[task.run])]


def _mended(services: Services, engine: Engine, task: Task, stage: Stage) -> bool:
    if stage is Stage.UNDER_WAY:
        return False  # it is taken over, or a living process works on it and has not written that down yet
    once = task.kind in wishes.NEVER_AGAIN and not task.by_hand
    if once and stage is Stage.UNKNOWN and engine.began(task.run):
        # Another version's run, which nobody goes on with. What it wrote is there, and what was checked need not hold now.
        performing.end_failed(services, Assigned(task, None), wishes.cut_off(task))
        return True
    point = _sealed(services, task) if stage is Stage.ENDED and not task.by_hand else None
    with services.jobs.transaction() as unit:
        current = unit.tasks.get(task.id)
        if current is None or (current.run, current.proxy) != (task.run, task.proxy):
            return False  # it is another attempt's by now, or goes on in another process
        if stage is Stage.UNKNOWN and not task.by_hand:
            return _put_back(services, unit, task)
        return _end(services, unit, task, point)


def _put_back(services: Services, unit: Unit, task: Task) -> bool:
    now = services.clock.now()
    if told_to_end(unit, unit.tasks.get(task.id)):
        why = Reason(ReasonCode.STOPPED_BY_PERSON, "it was claimed and not begun")
        return unit.tasks.end(task.id, TaskState.STOPPED, now, proxy=task.proxy, message=why.detail, reasons=(why,))
    why = Reason(ReasonCode.TAKEN_OVER, f"{task.proxy} ended before it began")
    return unit.tasks.again(task.id, now, proxy=task.proxy, reasons=(why,), count=False)


def _end(services: Services, unit: Unit, task: Task, point: RestorePointId | None) -> bool:
    now = services.clock.now()
    if point is not None:
        problem = "how its run ended could not be written down; its restore point is there"
        return unit.tasks.end(task.id, TaskState.DONE, now, proxy=task.proxy, point=point, problems=(problem,))
    # What a person began by hand ends with its process; of all else the work itself should have written the end.
    state = TaskState.STOPPED if task.by_hand else TaskState.FAILED
    message = "nobody could write down how it ended; what became of it is told by the history of runs"
    return unit.tasks.end(task.id, state, now, proxy=task.proxy, message=message)


def _sealed(services: Services, task: Task) -> RestorePointId | None:
    """The restore point of a backup that ended, if the repository can say so now."""
    with suppress(LanfreeError):
        backup = task.kind is TaskKind.BACKUP and task.machine
        points = services.repository.points(task.machine) if backup else ()
        return next((point.id for point in points if point.run == task.run), None)
    return None
