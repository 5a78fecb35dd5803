"""Durable workflows: the use cases of the data plane, with every step recorded by the engine, then written to the catalog.

Whatever the catalog refuses never fails a backup: the repository is the truth, and the catalog can be made again from it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from appliance import operations
from appliance.engine import Engine, durable
from appliance.wiring import Services
from proxy.backup import BackupRequest, BackupResult, back_up
from proxy.errors import LanfreeError
from proxy.model import MachineId, RestorePointId, RunId
from proxy.ports import ProgressSink
from proxy.restore import RestoreRequest, RestoreResult, restore


class Workflows:
    """The registered workflows of one engine. Made before the engine is entered."""

    def __init__(self, engine: Engine, services: Services) -> None:
        self._engine = engine
        self._services = services

        def backing_up(request: BackupRequest) -> BackupResult:
            with _noted(services, request.run, "backup", request.machine) as ended:
                result = back_up(services.backup_ports(), request, durable)
                ended.point = result.point.id
            problem = durable("record", operations.record, services, result.point)
            return replace(result, problems=(*result.problems, *([problem] if problem else [])))

        def restoring(request: RestoreRequest) -> RestoreResult:
            point = services.repository.point(request.point)
            with _noted(services, request.run, "restore", point.machine) as ended:
                ended.point = point.id
                return restore(services.restore_ports(), request, durable)

        def indexing(run: RunId, name: RestorePointId) -> operations.IndexReport:
            point = services.repository.point(name)
            with _noted(services, run, "index", point.machine) as ended:
                ended.point = point.id
                return durable("index", operations.index, services, point.id)

        self._back_up = engine.workflow("back-up", backing_up)
        self._restore = engine.workflow("restore", restoring)
        self._index = engine.workflow("index", indexing)

    def back_up(self, request: BackupRequest, progress: ProgressSink | None = None) -> BackupResult:
        """One restore point, see ``proxy.backup.back_up``."""
        self._services.progress = progress
        return self._engine.run(request.run, self._back_up, request)

    def restore(self, request: RestoreRequest, progress: ProgressSink | None = None) -> RestoreResult:
        """One machine, see ``proxy.restore.restore``."""
        self._services.progress = progress
        return self._engine.run(request.run, self._restore, request)

    def index(self, point: RestorePointId) -> operations.IndexReport:
        """Record the files of a restore point in the catalog, see ``operations.index``."""
        run = operations.new_run("i")
        return self._engine.run(run, self._index, run, point)


@contextmanager
def running(services: Services) -> Iterator[tuple[Workflows, list[str]]]:
    """An engine with our workflows: goes on with the runs of dead processes, then sweeps what they left on the hosts.

    Yields the workflows, and remarks about what was found, for people.
    """
    engine = Engine(services.workflow_url, services.settings.state.directory / "executors")
    workflows = Workflows(engine, services)
    with engine:
        remarks = []
        for taken in engine.recovered:
            error = taken.wait()
            remarks.append(f"run {taken.run} was interrupted and {f'failed: {error}' if error else 'is done now'}")
        remarks += operations.sweep(services, engine.live())
        yield workflows, remarks


@dataclass(slots=True)
class _Ended:
    point: RestorePointId | None = None


@contextmanager
def _noted(services: Services, run: RunId, kind: str, machine: MachineId) -> Iterator[_Ended]:
    """Keep a record of the run for people; the engine's own records are for going on."""
    ended = _Ended()
    durable("note start", operations.note_start, services, run, kind, machine)
    try:
        yield ended
    except LanfreeError as error:
        durable("note end", operations.note_end, services, run, None, error)
        raise
    durable("note end", operations.note_end, services, run, ended.point, None)
