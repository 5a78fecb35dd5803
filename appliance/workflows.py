"""Durable workflows: the use cases of the data plane, with every step recorded by the engine, then written to the catalog.

Whatever the catalog refuses never fails a backup: the repository is the truth, and the catalog can be made again from it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from appliance import indexing, operations
from appliance.engine import Engine, durable
from appliance.wiring import Services
from proxy.backup import BackupRequest, BackupResult, back_up
from proxy.errors import RestoreInterrupted
from proxy.model import MachineId, RestorePointId, RunId
from proxy.ports import ProgressSink
from proxy.restore import RestoreRequest, RestoreResult, restore


class Workflows:
    """The registered workflows of one engine. Made before the engine is entered."""

    def __init__(self, engine: Engine, services: Services) -> None:
        self._engine = engine
        self._services = services

        def backing_up(request: BackupRequest) -> BackupResult:
            with _noted(services, request.run, "backup", request.machine) as note:
                result = back_up(services.backup_ports(request.machine), request, durable)
                note.point = result.point.id
                note.problems.append(durable("record", operations.record, services, result.point))
            return replace(result, problems=(*result.problems, *filter(None, note.problems)))

        def restoring(request: RestoreRequest, executor: str) -> RestoreResult:
            if executor != engine.name:
                # Hours may have passed, and what was checked then need not hold now: nothing more is written.
                raise RestoreInterrupted(request.run, [str(place) for place in request.machine.disks.values()])
            point = services.repository.point(request.point)
            with _noted(services, request.run, "restore", point.machine) as note:
                note.point = point.id
                with services.restoring(request, point) as ports:
                    result = restore(ports, request, durable)
                    if request.attach is None:
                        return result
                    return replace(result, attached=durable("attach", services.attach, request, point, ports.targets))

        def recording(run: RunId, name: RestorePointId) -> indexing.IndexReport:
            point = services.repository.point(name)
            with _noted(services, run, "index", point.machine) as note:
                note.point = point.id
                return durable("index", indexing.index, services, point.id)

        self._back_up = engine.workflow("back-up", backing_up)
        self._restore = engine.workflow("restore", restoring)
        self._index = engine.workflow("index", recording)

    def back_up(self, request: BackupRequest, progress: ProgressSink | None = None) -> BackupResult:
        """One restore point, see ``proxy.backup.back_up``."""
        self._services.progress = progress
        return self._engine.run(request.run, self._back_up, request)

    def restore(self, request: RestoreRequest, progress: ProgressSink | None = None) -> RestoreResult:
        """One machine, see ``proxy.restore.restore``."""
        self._services.progress = progress
        return self._engine.run(request.run, self._restore, request, self._engine.name)

    def index(self, point: RestorePointId) -> indexing.IndexReport:
        """Record the files of a restore point in the catalog, see ``indexing.index``."""
        run = operations.new_run("i")
        return self._engine.run(run, self._index, run, point)


@contextmanager
def running(services: Services, say: Callable[[str], None], *, urgent: bool = False) -> Iterator[Workflows]:
    """An engine with our workflows: goes on with the runs of dead processes, then sweeps what they left on the hosts.

    What is found is told with ``say`` at once. ``urgent``: do not wait for those runs first; the end waits for them.
    """
    engine = Engine(services.workflow_url, services.settings.state.directory / "executors")
    workflows = Workflows(engine, services)
    with engine:
        for taken in engine.recovered:
            say(f"run {taken.run} was interrupted: going on with it")
        if not urgent:
            for taken in engine.recovered:
                error = taken.wait()
                say(f"run {taken.run} {f'failed: {error}' if error else 'is done now'}")
            for remark in operations.sweep(services, engine.live):
                say(remark)
        yield workflows


@dataclass(slots=True)
class _Note:
    point: RestorePointId | None = None
    problems: list[str] = field(default_factory=list)


@contextmanager
def _noted(services: Services, run: RunId, kind: str, machine: MachineId) -> Iterator[_Note]:
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
