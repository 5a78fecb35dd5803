"""A job run from its beginning to its end, as steps of durable workflows: each may run twice, by whoever is alive.

::

    begun ── hooks ── machines chosen, tasks planned ──(tasks)── copies, verification ──(tasks)── pruning ──(tasks)── hooks, end
    phase 0                                                      phase 1                         phase 2             phase 3

Between phases the workers do the tasks. The next phase begins when no task of the run is left to do and adds what comes next,
which may be nothing. Each is a workflow with an id of its own: whoever sees that it is time starts it, and it runs once.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from appliance.jobs.retention import has_rules
from appliance.serving import hooks
from appliance.serving.engine import SetAside
from appliance.serving.performing import patient, stopped
from appliance.wiring import Services
from catalog.jobs import limits
from catalog.jobs.policy import Hook
from catalog.jobs.values import JobRun, JobRunState, Task, TaskKind, TaskState
from proxy.errors import DatabaseAway, HookFailed, LanfreeError
from proxy.model import Reason, ReasonCode

log = logging.getLogger("lanfree.jobs")

END = 3
"""The last phase."""

AfterRun = Callable[[Services, JobRun], None]
"""What is done when a job run has ended: tell people, protect the appliance. May run twice."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of the beginning. ``error``: why there is nothing to do; ``reasons``, ``notes``: of the run."""

    selected: int = 0
    error: LanfreeError | None = None
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()


@patient
def load(services: Services, run: str) -> JobRun | None:
    """The run while it goes on."""
    with services.jobs.transaction(write=False) as unit:
        found = unit.runs.get(run)
    return found if found is not None and found.state is JobRunState.RUNNING else None


def before(services: Services, run: JobRun) -> tuple[hooks.HookOutcome, ...]:
    """The hooks of the beginning. Raises ``SetAside`` when they were ended with the service."""
    return _hooked(services, run, run.policy.before, run.state)


def _hooked(
    services: Services, run: JobRun, which: Sequence[Hook], state: JobRunState
) -> tuple[hooks.HookOutcome, ...]:
    known = {"LANFREE_JOB": run.job_name, "LANFREE_RUN": run.id, "LANFREE_STATE": state.value}
    outcomes = hooks.run_hooks(which, known, services.cancelled.is_set)
    if any(outcome.why == hooks.ENDED_WITH_SERVICE for outcome in outcomes):
        # An end of this process says nothing of the run: whoever goes on with it runs them again, from the first.
        raise SetAside(f"hooks of run {run.id}")
    return outcomes


@patient
def choose(services: Services, run: JobRun, outcomes: Sequence[hooks.HookOutcome]) -> Opened:
    """Choose the machines and add their tasks, unless that was done; nothing where a hook failed that had to succeed."""
    told = tuple(str(outcome) for outcome in outcomes if outcome.why or outcome.output)
    for outcome in outcomes:
        if outcome.failed:
            why = Reason(ReasonCode.HOOK_FAILED, outcome.hook.command[0])
            return Opened(0, HookFailed(run.job_name, str(outcome)), (why,), told)
    if _has_tasks(services, run):
        return Opened(notes=told)
    try:
        opened = _chosen(services, run)
    except DatabaseAway:
        raise  # it comes back, and then all is chosen anew
    except LanfreeError as error:
        return Opened(0, error, notes=told)
    return replace(opened, notes=(*told, *opened.notes))


def _chosen(services: Services, run: JobRun) -> Opened:
    from appliance.planning import tasks_of  # noqa: PLC0415  # brings the planner
    from appliance.selecting import facts_of, look  # noqa: PLC0415  # brings hypervisors

    selected = look(services).choose(run.policy.select)
    full = any(reason.code is ReasonCode.FULL_REQUESTED for reason in run.reasons)
    tasks = tasks_of(services, run, selected.machines, facts_of(services), services.clock.now(), full=full)
    reasons = [Reason(ReasonCode.HOSTS_SILENT, f"{host}: {why}") for host, why in selected.silent.items()]
    if not tasks:
        reasons.append(Reason(ReasonCode.NOTHING_SELECTED, "no machine fits its rules"))
    notes = [*(f"{host} does not answer: {why}" for host, why in selected.silent.items()), *selected.idle]
    opened = Opened(len(tasks), None, tuple(reasons), tuple(notes))
    _add(services, run, tasks, opened)
    return opened


@patient
def _has_tasks(services: Services, run: JobRun) -> bool:
    with services.jobs.transaction(write=False) as unit:
        return bool(unit.tasks.counts([run.id]))


@patient
def _add(services: Services, run: JobRun, tasks: Sequence[Task], opened: Opened) -> None:
    """All of them, with what has to be known of them, or none: a beginning that is begun again finds them all, and does not
    look at the hosts again. None where the run was stopped meanwhile."""
    with services.jobs.transaction() as unit:
        if not stopped(unit.runs.get(run.id)) and not unit.tasks.counts([run.id]):
            now = services.clock.now()
            unit.tasks.add([replace(task, created_at=now) for task in tasks])
            unit.runs.change(run.id, selected=len(tasks), reasons=opened.reasons)
            for text in opened.notes:
                unit.runs.note(run.id, text)


@patient
def note(services: Services, run: JobRun, opened: Opened) -> None:
    """What has to be known of the beginning; a run that has nothing to do for an error ends here."""
    with services.jobs.transaction() as unit:
        for text in opened.notes:
            unit.runs.note(run.id, text)
        unit.runs.change(run.id, reasons=opened.reasons)
        if opened.error is not None:
            why = opened.error
            hint = f" ({why.hint})" if why.hint else ""
            unit.runs.end(run.id, JobRunState.FAILED, services.clock.now(), (), [f"{why.message}{hint}"])


@patient
def follow(services: Services, run: JobRun, phase: int) -> int:
    """Add the tasks of a later phase, if it has any and the run was not told to end; how many there are of them."""
    with services.jobs.transaction() as unit:
        found = unit.runs.get(run.id)
        if found is None or found.state is not JobRunState.RUNNING or found.stop_at is not None:
            return 0
        known = unit.tasks.of_run(run.id)
        wanted = _following(services, run, phase, [task for task in known if task.state is TaskState.DONE])
        there = {task.id for task in known}
        now = services.clock.now()
        unit.tasks.add([replace(task, created_at=now) for task in wanted if task.id not in there])
        return len(wanted)


def _following(services: Services, run: JobRun, phase: int, done: Sequence[Task]) -> list[Task]:
    wanted: list[tuple[TaskKind, str]] = []
    if phase == 1 and done:
        wanted += [(TaskKind.COPY, copy.name) for copy in run.policy.copy_to]
    if phase == 1 and run.policy.verify.days:
        wanted.append((TaskKind.VERIFY, ""))
    if phase == 2:
        places = ("", *(copy.name for copy in run.policy.copy_to))
        wanted += [(TaskKind.PRUNE, place) for place in places if has_rules(services.settings, run.policy, place)]
    own = services.repository.settings.id.hex()
    return [
        Task(
            id=f"{run.id}-{kind.value}{f'-{target}' if target else ''}",
            job_run=run.id,
            kind=kind,
            state=TaskState.WAITING,
            keys=(limits.key(kind.value, target or own),),
            target=target,
            deadline=run.deadline,
        )
        for kind, target in wanted
    ]


def after(services: Services, run: JobRun) -> tuple[str, ...]:
    """The hooks of the end, which change nothing any more; those that failed, for people. Raises as ``before``."""
    outcomes = _hooked(services, run, run.policy.after, verdict(_tasks(services, run), run))
    return tuple(str(outcome) for outcome in outcomes if outcome.why or outcome.output)


@patient
def _tasks(services: Services, run: JobRun) -> Sequence[Task]:
    with services.jobs.transaction(write=False) as unit:
        return unit.tasks.of_run(run.id)


@patient
def end(services: Services, run: JobRun, notes: Sequence[str]) -> JobRun:
    """The run as it ended."""
    with services.jobs.transaction() as unit:
        known = unit.runs.get(run.id) or run
        tasks = unit.tasks.of_run(run.id)
        unit.runs.end(run.id, verdict(tasks, known), services.clock.now(), (), notes)
        return unit.runs.get(run.id) or run


@patient
def ended(services: Services, run: JobRun) -> JobRun:
    """A run as it has ended before its last phase."""
    with services.jobs.transaction(write=False) as unit:
        return unit.runs.get(run.id) or run


@patient
def give_up(services: Services, run: JobRun, error: Exception) -> None:
    """A phase failed by a fault that nobody foresaw: the run ends, and says so."""
    known = error if isinstance(error, LanfreeError) else LanfreeError(f"a fault in Lanfree: {error!r}")
    now = services.clock.now()
    with services.jobs.transaction() as unit:
        unit.runs.stop(run.id, now)
        unit.runs.end(run.id, JobRunState.FAILED, now, (), [known.message])


def tell(services: Services, told: AfterRun, run: JobRun) -> None:
    """What follows a run never fails it."""
    try:
        told(services, run)
    except Exception as error:  # whatever it is, the run has ended as it did
        log.exception("after run %s: %s", run.id, error, extra={"job": run.job_name, "run": run.id})


def verdict(tasks: Sequence[Task], run: JobRun) -> JobRunState:
    """Pure. The gravest of what happened counts."""
    states = {task.state for task in tasks}
    if TaskState.FAILED in states:
        return JobRunState.FAILED
    if run.stop_at is not None or states & {TaskState.STOPPED, TaskState.WAITING, TaskState.RUNNING}:
        return JobRunState.STOPPED
    alarming = {ReasonCode.HOSTS_SILENT, ReasonCode.NOTHING_SELECTED}
    if any(task.problems for task in tasks) or any(reason.code in alarming for reason in run.reasons):
        return JobRunState.ATTENTION
    return JobRunState.DONE
