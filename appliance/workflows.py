"""Durable workflows: the use cases of the data plane, with every step recorded by the engine, then written to the catalog.

Whatever the catalog refuses never fails a backup: the repository is the truth, and the catalog can be made again from it.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from appliance import databases, indexing, inventory, operations, restoring
from appliance.keeping import lines
from appliance.serving import asked, mending, performing, phases, upkeep, wishes
from appliance.serving.afterwards import AFTER_RUN
from appliance.serving.by_hand import holding, holding_for_restore
from appliance.serving.engine import SHAPE, Engine, Stage, Taken
from appliance.serving.performing import Assigned, Done
from appliance.telling.logs import bound
from appliance.wiring import Services
from catalog.jobs.values import Cause, JobRun, Task, TaskKind, TaskState
from proxy.backup import BackupRequest, BackupResult, Step, back_up
from proxy.errors import Cancelled, LanfreeError, RestoreInterrupted
from proxy.model import MachineId, RestorePointId, RunId
from proxy.ports import ProgressSink
from proxy.restore import RestoreRequest, RestoreResult, restore

log = logging.getLogger("lanfree.tasks")

INDEXED_AT_ONCE = 2
"""Runs of one process whose files are read at the same time: each may boot an appliance of its own, with its memory."""


class Workflows:
    """The registered workflows of one engine. Made before the engine is entered."""

    def __init__(self, engine: Engine, services: Services) -> None:
        self._engine = engine
        self._services = services
        self._indexers = threading.BoundedSemaphore(INDEXED_AT_ONCE)
        services.controls.liveness = engine.liveness
        self._back_up = engine.workflow("back-up", self._backing_up)
        self._restore = engine.workflow("restore", self._restoring)
        self._index = engine.workflow("index", self._indexing)
        self._perform = engine.workflow("perform", self._performing)
        self._phase = engine.workflow("phase", self._phasing)

    def back_up(self, request: BackupRequest, progress: ProgressSink | None = None) -> BackupResult:
        """One restore point, see ``proxy.backup.back_up``."""
        with self._watched(request.run, progress), holding(self._services, self._engine.name, request):
            return self._engine.run(request.run, self._back_up, request)

    def restore(self, request: RestoreRequest, progress: ProgressSink | None = None) -> RestoreResult:
        """One machine, see ``proxy.restore.restore``."""
        with self._watched(request.run, progress), holding_for_restore(self._services, self._engine.name, request):
            return self._engine.run(request.run, self._restore, request, self._engine.name)

    def index(self, point: RestorePointId) -> indexing.IndexReport:
        """Record the files of a restore point in the catalog, see ``indexing.index``."""
        run = operations.new_run("i")
        return self._engine.run(run, self._index, run, point)

    def perform(self, task: str, run: RunId) -> None:
        """Begin the work of a task that was claimed under this run; it ends the task itself."""
        self._engine.start(run, self._perform, task, run)

    def phase(self, job_run: str, phase: int) -> None:
        """Begin a phase of a job run, see ``appliance.serving.phases``; nothing where it was begun before, by whomever."""
        self._engine.start(_phase_id(job_run, phase), self._phase, job_run, phase)

    def last_phase(self, job_runs: Iterable[str]) -> Mapping[str, tuple[int, Stage]]:
        """The last phase of each of these that was begun, and how far it is; -1 where none was."""
        wanted = {_phase_id(run, phase): (run, phase) for run in job_runs for phase in range(phases.END + 1)}
        last = {run: (-1, Stage.UNKNOWN) for run, _ in wanted.values()}
        for id_, stage in self._engine.stages(wanted).items():
            run, phase = wanted[id_]
            if stage is not Stage.UNKNOWN and phase > last[run][0]:
                last[run] = (phase, stage)
        return last

    @property
    def name(self) -> str:
        """Of the engine, as proxies are known by."""
        return self._engine.name

    @property
    def recovered(self) -> Sequence[Taken]:
        """See ``Engine.recovered``."""
        return self._engine.recovered

    @property
    def busy(self) -> bool:
        """See ``Engine.busy``."""
        return self._engine.busy

    def living(self) -> frozenset[str]:
        """See ``Liveness.living``."""
        return self._engine.liveness.living()

    def bury(self, name: str) -> bool:
        """Count on this process no more, if it is gone; whether nobody said so before."""
        liveness = self._engine.liveness
        with liveness.declared_gone(name) as gone:
            if not gone:
                return False
            with self._services.jobs.transaction() as unit:
                return unit.proxies.gone(name) or name in liveness.buried

    def mend(self) -> Sequence[Task]:
        """See ``mending.mend``."""
        return mending.mend(self._services, self._engine)

    def take_over(self) -> Sequence[Taken]:
        """See ``Engine.take_over``."""
        return self._engine.take_over()

    def forget(self, before: datetime) -> int:
        """See ``Engine.forget``."""
        return self._engine.forget(before)

    def sweep(self) -> list[str]:
        """See ``operations.sweep``."""
        return operations.sweep(self._services, self._engine.live)

    def stages(self, runs: Iterable[RunId]) -> Mapping[RunId, Stage]:
        """See ``Engine.stages``."""
        return self._engine.stages(runs)

    @contextmanager
    def _watched(self, run: RunId, progress: ProgressSink | None) -> Iterator[None]:
        controls = self._services.controls
        controls.of(run).progress = progress
        try:
            yield
        finally:
            controls.forget(run)

    def _backing_up(self, request: BackupRequest, modes: Sequence[str] | None = None) -> BackupResult:
        services, step = self._services, self._engine.step
        with _noted(services, step, request.run, "backup", request.machine) as note:
            result = back_up(services.backup_ports(request.machine, request.run, modes), request, step)
            note.point = result.point.id
            note.problems.append(step("record", operations.record, services, result.point))
        return replace(result, problems=(*result.problems, *filter(None, note.problems)))

    def _restoring(self, request: RestoreRequest, executor: str) -> RestoreResult:
        services, step = self._services, self._engine.step
        if executor != self._engine.name:
            # Hours may have passed, and what was checked then need not hold now: nothing more is written.
            raise RestoreInterrupted(request.run, [str(place) for place in request.machine.disks.values()])
        point = services.repository.point(request.point)
        with _noted(services, step, request.run, "restore", point.machine) as note:
            note.point = point.id
            with services.restoring(request, point) as ports:
                result = restore(ports, request, step)
                if request.attach is None:
                    return result
                return replace(result, attached=step("attach", services.attach, request, point, ports.targets))

    def _indexing(self, run: RunId, name: RestorePointId) -> indexing.IndexReport:
        services, step = self._services, self._engine.step
        point = services.repository.point(name)
        with _noted(services, step, run, "index", point.machine) as note:
            note.point = point.id
            return step("index", indexing.index, services, point.id)

    def _performing(self, task: str, run: RunId) -> TaskState | None:
        services, step = self._services, self._engine.step
        assigned = step("task", performing.load, services, task, run)
        if assigned is None:
            return None  # it is another run's by now
        assigned = performing.here(services, assigned, self._engine.name)
        about = assigned.task.machine_name or assigned.task.target
        of_run = assigned.task.job_run
        with bound(job=assigned.job_name, job_run=of_run, run=run, machine=about, task=task):
            try:
                return self._ended(assigned)
            finally:
                services.controls.forget(run)

    def _ended(self, assigned: Assigned) -> TaskState:
        """Do it, and write down what came of it."""
        services, step = self._services, self._engine.step
        if assigned.task.kind in wishes.NEVER_AGAIN and assigned.taken_from:
            return self._cut_off(assigned)
        try:
            with services.controls.tracking(assigned.task):
                done = self._work(assigned)
        except Exception as error:  # noqa: BLE001  # also a fault of ours is how the task ended
            state = step("end", performing.end_failed, services, assigned, error)
            log.warning("%s: %s", state.value, error, extra={"event": f"task-{state.value}"})
            return state
        state = step("end", performing.end_done, services, assigned, done)
        log.info("%s", performing.summary(assigned, done), extra={"event": f"task-{state.value}"})
        return state

    def _cut_off(self, assigned: Assigned) -> TaskState:
        """What writes to somebody else's disks ends with the process that began it. No recorded step: the next record may be of
        any step that it got to, and the end is written once all the same."""
        error = wishes.cut_off(assigned.task)
        state = performing.end_failed(self._services, assigned, error)
        log.warning("%s: %s", state.value, error, extra={"event": f"task-{state.value}"})
        return state

    def _phasing(self, name: str, phase: int) -> None:
        services, step = self._services, self._engine.step
        run = step("run", phases.load, services, name)
        if run is None:
            return
        try:
            self._phase_of(run, phase)
        except Exception as error:  # also a fault of ours is how the run ended: else nobody would ever hear of it
            step("give up", phases.give_up, services, run, error)
            self._after(step("given up", phases.ended, services, run))
            raise
        finally:
            services.controls.changed.set()

    def _phase_of(self, run: JobRun, phase: int) -> None:
        services, step = self._services, self._engine.step
        if phase == 0:
            if run.cause is Cause.MANUAL:  # who asked for it only wrote it down
                known = {"event": "job-run-began", "job": run.job_name, "job_run": run.id}
                log.info("job %s began, by hand", run.job_name, extra=known)
            outcomes = step("before", phases.before, services, run)
            opened = step("choose", phases.choose, services, run, outcomes)
            step("note", phases.note, services, run, opened)
            if opened.error is not None:
                self._after(step("not begun", phases.ended, services, run))
        elif phase < phases.END:
            step("follow", phases.follow, services, run, phase)
        else:
            notes = step("after", phases.after, services, run)
            self._after(step("end", phases.end, services, run, notes))

    def _after(self, run: JobRun) -> None:
        """What follows a run, however it ended."""
        known = {"event": "job-run-ended", "job": run.job_name, "job_run": run.id}
        log.info("job %s %s", run.job_name, "; ".join((run.state.value, *run.notes)), extra=known)
        for number, told in enumerate(AFTER_RUN):
            self._engine.step(f"tell {number}", phases.tell, self._services, told, run)

    def _work(self, assigned: Assigned) -> Done:
        """By kind. Raises what the work raises."""
        services, task = self._services, assigned.task
        if task.kind is TaskKind.RESTORE:
            return self._restored(task)
        if task.kind is TaskKind.INDEX:
            points = self._engine.step("which", asked.to_index, services, task)
            recorded, problems = self._indexed(task, points)
            return Done(problems=problems, result={"points": len(points), "recorded": len(recorded)})
        if task.kind is TaskKind.REBUILD:
            return self._rebuilt(task)
        if task.kind is not TaskKind.BACKUP and assigned.job_run is None:
            return self._engine.step("work", asked.perform, services, task, self._engine.live)
        if task.kind is not TaskKind.BACKUP:
            return self._engine.step("work", upkeep.keep_up, services, assigned)
        result = self._backing_up(performing.request(services, assigned), assigned.policy.transports)
        remarks = self._files(assigned, result.point.id) if performing.indexes(services, assigned.policy) else ()
        return performing.backed_up(result, remarks)

    def _restored(self, task: Task) -> Done:
        """A whole machine, by a process that was there from the beginning."""
        wish = wishes.read(wishes.RestoreWish, task)
        request = replace(wish.request, run=task.run)
        control = self._services.controls.of(task.run)
        control.say("looking at the places once more")
        self._engine.step("confirmed", restoring.make_sure, self._services, request, wish.confirmed)
        control.say("writing disks")
        result = self._restoring(request, self._engine.name)
        if result.machine is not None:
            control.say("looking at the hypervisors")
            self._engine.step("show", _show, self._services)
        return performing.restored(result)

    def _rebuilt(self, task: Task) -> Done:
        """The catalog's list, then the files that it lacks."""
        listed, missing = self._engine.step("rebuild", asked.rebuild, self._services, task)
        files = wishes.read(wishes.RebuildWish, task).files
        recorded, problems = self._indexed(task, missing) if files else ((), ())
        left = [point for point in missing if point not in frozenset(recorded)]
        shown = lines.kept(left, lambda point: {"point": point})
        known: dict[str, object] = {"points": listed, "recorded": len(recorded), "not_indexed": len(left), **shown}
        return Done(problems=problems, result=known)

    def _indexed(
        self, task: Task, points: Sequence[RestorePointId]
    ) -> tuple[Sequence[RestorePointId], tuple[str, ...]]:
        """Files of several restore points; one that cannot be opened does not keep the others from it. Those that are recorded
        now, and problems."""
        control = self._services.controls.of(task.run)
        problems: list[str] = []
        done: list[RestorePointId] = []
        for number, point in enumerate(points):
            if control.cancelled():
                raise Cancelled("the recording of files")
            control.say(f"restore point {number + 1} of {len(points)}")
            try:
                with self._indexers:
                    problems += self._indexing(f"{task.run}-index-{number}", point).problems
                done.append(point)
            except Cancelled:
                raise
            except LanfreeError as error:
                problems.append(f"{point}: its files are not recorded: {error.message}")
        return done, asked.first(problems)

    def _files(self, assigned: Assigned, point: RestorePointId) -> tuple[str, ...]:
        """Record the files of a new restore point. The backup is good without their names: they can be recorded later."""
        if self._services.controls.of(assigned.task.run).cancelled():
            return ("its files are not recorded: the run was ended",)
        try:
            with self._indexers:
                report = self._indexing(f"{assigned.task.run}-index", point)
        except LanfreeError as error:
            return (f"its files are not recorded: {error.message}",)
        return report.problems


def _phase_id(job_run: str, phase: int) -> RunId:
    """Of the workflow. After an upgrade that changed the steps a phase begins anew: what it did before stands, and is found."""
    return f"{job_run}-{phase}.{SHAPE}"


@contextmanager
def running(services: Services, say: Callable[[str], None], *, urgent: bool = False) -> Iterator[Workflows]:
    """An engine with our workflows: goes on with the runs of dead processes, then sweeps what they left on the hosts.

    What is found is told with ``say`` at once. ``urgent``: do not wait for those runs first; the end waits for them.
    """
    engine = Engine(services.workflow_url, services.liveness, databases.workflow_engine(services.settings))
    workflows = Workflows(engine, services)
    with engine:
        for taken in engine.recovered:
            say(f"run {taken.run} was interrupted: going on with it")
        if not urgent:
            for taken in engine.recovered:
                error = taken.wait()
                say(f"run {taken.run} {f'failed: {error}' if error else 'is done now'}")
            workflows.mend()
            for remark in operations.sweep(services, engine.live):
                say(remark)
        yield workflows


@dataclass(slots=True)
class _Note:
    point: RestorePointId | None = None
    problems: list[str] = field(default_factory=list)


@contextmanager
def _noted(services: Services, durable: Step, run: RunId, kind: str, machine: MachineId) -> Iterator[_Note]:
    """Keep a record of the run for people (the engine's own records are for going on). A catalog that cannot be written
    is a problem to tell, never the end of a backup, and never hides how the run itself ended."""
    note = _Note(problems=[durable("note start", operations.note_start, services, run, kind, machine)])
    try:
        yield note
    except Exception as error:  # also a fault of ours is how the run ended
        problem = durable("note end", operations.note_end, services, run, None, error)
        for remark in filter(None, (*note.problems, problem)):
            error.add_note(remark)
        raise
    note.problems.append(durable("note end", operations.note_end, services, run, note.point, None))


def _show(services: Services) -> None:
    """Let lists and trees have a restored machine when its task has ended: whoever asked for it looks for it there."""
    try:
        inventory.refresh(services)
    except LanfreeError as error:  # the machine is there all the same, and the next look shows it
        log.warning("the restored machine is not in the lists yet: %s", error.message, extra={"event": "not-shown"})
