"""Work that callers of the API ask for."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from api.auth.roles import Caller, Permission
from api.refusals import BeyondReach, NotAllowed
from api.schemas import work
from api.schemas.tasks import Task
from appliance.auditing import audit
from appliance.serving import wishes
from appliance.web import asking
from appliance.web.reaching import machine_in_reach, point_in_reach
from appliance.web.tasks import Shown
from appliance.wiring import Services
from catalog.jobs import limits, values
from catalog.jobs.values import TaskKind
from proxy.errors import ConfigurationError, MachineNotFound
from proxy.model import MachineId, RestorePointId

_PREVIEW = "preview"
"""Kind of the key of what only looks; it has no limit."""


class WebWork:
    """See ``api.ports.tasks.Work``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def back_up(self, caller: Caller, machine: str, order: work.BackupOrder) -> Task:
        """See the port."""
        services = self._services
        if not machine.isprintable():
            raise MachineNotFound(ascii(machine))
        found = services.hypervisor.machine(machine)
        if not caller.sees(found.id, found.name):
            raise MachineNotFound(machine)
        unknown = sorted(set(order.exclude) - {disk.key for disk in found.disks})
        if unknown:
            known = ", ".join(disk.key for disk in found.disks)
            raise ConfigurationError("exclude", f"{found.name} has no disk {unknown[0]!r}, only {known}")
        wish = wishes.BackupWish(quiesce=order.quiesce, index=order.index)
        said = order.model_dump(mode="json")
        audit(services, "back-up", who=caller.who, about=found.id, **said)
        excluded = frozenset(order.exclude)
        task = asking.ask_backup(services, caller.name, found, wish, full=order.full, exclude=excluded)
        return self._shown(task)

    def verify(self, caller: Caller, order: work.VerificationOrder) -> Task:
        """See the port."""
        points, machines = self._points(caller, order.points), self._machines(caller, order.machines)
        if not points and not machines:
            self._all(caller, "verify what other machines have")
        wish = wishes.VerifyWish(points=points, machines=machines, share=order.share, deep=order.deep)
        return self._ask(caller, TaskKind.VERIFY, wish, point=points[0] if len(points) == 1 else None)

    def prune(self, caller: Caller, order: work.PruneOrder) -> Task:
        """See the port."""
        if not (order.dry_run or caller.may(Permission.DELETE_POINTS)):
            raise NotAllowed(caller.name, Permission.DELETE_POINTS)
        self._all(caller, "see what no rule keeps of all machines, or delete it")
        wish = wishes.PruneWish(dry_run=order.dry_run)
        # Who only looks waits for nobody.
        keys = (limits.key(_PREVIEW, self._services.repository.settings.id.hex()),) if order.dry_run else ()
        return self._ask(caller, TaskKind.PRUNE, wish, target=self._target(order.repository), keys=keys)

    def repair(self, caller: Caller, order: work.RepairOrder) -> Task:
        """See the port."""
        (point,) = self._points(caller, [order.point]) if order.point else (None,)
        if point is None:
            self._all(caller, "mend what other machines have")
        name = _among(order.repository, [section.name for section in self._services.settings.copy_to], "copy_to")
        if not name:
            raise ConfigurationError("repository", "it is our own that is mended", hint="name the one with the copies")
        return self._ask(caller, TaskKind.REPAIR, wishes.RepairWish(only=point or ""), point=point, target=name)

    def audit(self, caller: Caller, order: work.AuditOrder) -> Task:
        """See the port."""
        self._all(caller, "look at the chains of all machines")
        return self._ask(caller, TaskKind.AUDIT, wishes.AuditWish(publish=order.publish))

    def protect(self, caller: Caller) -> Task:
        """See the port."""
        self._all(caller, "protect the appliance, which knows all machines")
        return self._ask(caller, TaskKind.PROTECT, None)

    def rebuild_catalog(self, caller: Caller, order: work.CatalogRebuildOrder) -> Task:
        """See the port."""
        self._all(caller, "make the list of all machines' restore points again")
        return self._ask(caller, TaskKind.REBUILD, wishes.RebuildWish(files=order.files))

    def collect(self, caller: Caller, order: work.CollectionOrder) -> Task:
        """See the port."""
        self._all(caller, "give back space of all machines")
        wish = wishes.CollectWish(dry_run=order.dry_run)
        return self._ask(caller, TaskKind.COLLECT, wish, target=self._target(order.repository))

    def copy(self, caller: Caller, order: work.CopyOrder) -> Task:
        """See the port."""
        if bool(order.to) == bool(order.source):
            raise ConfigurationError("to, source", "exactly one of them is to be named")
        if order.source:
            self._all(caller, "copy machines of another site")
            points, machines = order.points, order.machines
        else:
            points, machines = self._points(caller, order.points), self._machines(caller, order.machines)
        if not points and not machines:
            self._all(caller, "copy what other machines have")
        wish = wishes.CopyWish(
            pull=bool(order.source),
            machines=machines,
            points=points,
            newest=order.newest,
            since=order.since,
            read_back=order.read_back,
        )
        target = self._source(order.source) if order.source else self._target(order.to)
        return self._ask(caller, TaskKind.COPY, wish, target=target)

    def sweep(self, caller: Caller) -> Task:
        """See the port."""
        self._all(caller, "look at all hosts")
        return self._ask(caller, TaskKind.SWEEP, None)

    def index(self, caller: Caller, order: work.IndexingOrder) -> Task:
        """See the port."""
        points = self._points(caller, order.points)
        if not points:
            self._all(caller, "record the files of all machines")
        wish = wishes.IndexWish(points=points)
        return self._ask(caller, TaskKind.INDEX, wish, point=points[0] if len(points) == 1 else None)

    def measure(self, caller: Caller, order: work.MeasurementOrder) -> Task:
        """See the port."""
        self._all(caller, "measure what all machines take")
        return self._ask(caller, TaskKind.MEASURE, None, target=self._target(order.repository))

    def _ask(
        self,
        caller: Caller,
        kind: TaskKind,
        wish: BaseModel | None,
        *,
        point: RestorePointId | None = None,
        target: str = "",
        keys: Sequence[str] = (),
    ) -> Task:
        said = wish.model_dump(mode="json", exclude={"version"}, exclude_defaults=True) if wish is not None else {}
        audit(self._services, f"ask-{kind.value}", who=caller.who, repository=target, **said)
        return self._shown(asking.ask(self._services, caller.name, kind, wish, point=point, target=target, keys=keys))

    def _shown(self, task: values.Task) -> Task:
        with self._services.jobs.transaction(write=False) as unit:
            return Shown.look(self._services, unit, [task])[0]

    def _points(self, caller: Caller, names: Iterable[str]) -> tuple[RestorePointId, ...]:
        return tuple(point_in_reach(self._services, caller, name)[0].id for name in names)

    def _machines(self, caller: Caller, names: Iterable[str]) -> tuple[MachineId, ...]:
        with self._services.catalog.transaction(write=False) as unit:
            return tuple(machine_in_reach(unit, caller, name)[0] for name in names)

    def _target(self, name: str) -> str:
        return _among(name, [section.name for section in self._services.settings.copy_to], "copy_to")

    def _source(self, name: str) -> str:
        return _among(name, [section.name for section in self._services.settings.copy_from], "copy_from")

    @staticmethod
    def _all(caller: Caller, what: str) -> None:
        if not caller.sees_all:
            raise BeyondReach(caller.name, what)


def _among(name: str, known: list[str], kind: str) -> str:
    """``main`` is our own, and so is nothing."""
    if name in {"", "main"} and kind == "copy_to" and name not in known:
        return ""
    if name not in known:
        raise ConfigurationError(name, f"no [[{kind}]] of this name; there are: {', '.join(known) or 'none'}")
    return name
