"""``api.ports.machines`` over the catalog."""

from collections.abc import Sequence
from datetime import datetime

from api.auth.roles import Caller
from api.paging import Page, decode, encode
from api.schemas import machines as schemas
from api.schemas.common import Reason
from api.schemas.machines import (
    Failure,
    Machine,
    MachineDetail,
    MachineDisk,
    MachineFilter,
    MachineQuery,
    ProtectionCounts,
    TimelinePoint,
)
from appliance.wiring import Services
from catalog import machine_list
from catalog.inventory import DiskFacts
from catalog.machine_list import ListedMachine
from catalog.point_list import PointQuery
from catalog.unit_of_work import Unit
from proxy.errors import NoSuchMachine
from proxy.model import Consistency, Format, Level, MachineId, PowerState, ReasonCode

MOST_ON_AXIS = 5000
"""Restore points of one machine that a time axis gets: five a day for almost three years; more cannot be told apart on it."""

_NOT_TRUSTED = frozenset({"suspect", "damaged"})


class WebMachines:
    """Asks no hypervisor."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def page(self, caller: Caller, query: MachineQuery) -> Page[Machine]:
        """See the port."""
        after = tuple(decode(query.cursor, 2)) if query.cursor is not None else None
        with self._services.catalog.transaction(write=False) as unit:
            found, following = unit.machines.page(
                narrowed(caller, query),
                self._services.clock.now(),
                sort=query.sort.value,
                limit=query.limit,
                after=after,
            )
        return Page(items=[shown(one) for one in found], next=encode(*following) if following else None)

    def counts(self, caller: Caller, which: MachineFilter) -> ProtectionCounts:
        """See the port."""
        with self._services.catalog.transaction(write=False) as unit:
            counted = unit.machines.counts(narrowed(caller, which), self._services.clock.now())
        return ProtectionCounts(total=sum(counted.values()), **counted)

    def get(self, caller: Caller, machine: MachineId) -> MachineDetail:
        """See the port."""
        with self._services.catalog.transaction(write=False) as unit:
            found = self._within(unit, caller, machine)
            facts = unit.machines.facts(machine)
        return MachineDetail(
            **shown(found).model_dump(),
            disks=[_disk(disk) for disk in facts.disks],
            pool=facts.pool,
            datastores=list(facts.datastores),
            attributes=dict(facts.attributes or {}),
        )

    def timeline(
        self, caller: Caller, machine: MachineId, since: datetime | None, until: datetime | None
    ) -> Sequence[TimelinePoint]:
        """See the port."""
        with self._services.catalog.transaction(write=False) as unit:
            self._within(unit, caller, machine)
            lines, _ = unit.points.page(PointQuery(machine, since, until), limit=MOST_ON_AXIS)
        return [
            TimelinePoint(
                id=line.id,
                created_at=line.created_at,
                level=Level(line.level),
                consistency=Consistency(line.consistency),
                transports=list(line.transports),
                size=line.size,
                bytes_new=line.bytes_new,
                held=line.held,
                damaged=line.health in _NOT_TRUSTED,
            )
            for line in reversed(lines)
        ]

    def _within(self, unit: Unit, caller: Caller, machine: MachineId) -> ListedMachine:
        found = unit.machines.get(machine, self._services.clock.now()) if machine.isprintable() else None
        if found is None or not caller.sees(found.id, found.name):
            raise NoSuchMachine(machine, "neither hypervisors nor restore points know it")
        return found


def narrowed(caller: Caller, which: MachineFilter) -> machine_list.MachineQuery:
    """The question of the catalog, with what the caller reaches."""
    return machine_list.MachineQuery(
        text=which.q,
        host=which.host,
        hypervisor=which.hypervisor,
        cluster=which.cluster,
        state=which.state.value if which.state is not None else "",
        protection=tuple(one.value for one in which.protection),
        tag=which.tag,
        folder=which.folder,
        job=which.job,
        machines=caller.machines,
    )


def shown(one: ListedMachine) -> Machine:
    """As the API has it."""
    failure = None
    if one.failed_at is not None:
        failure = Failure(at=one.failed_at, code=one.failure or "unknown", message=one.failure_message or "")
    return Machine(
        id=one.id,
        name=one.name,
        host=one.host,
        hypervisor=one.hypervisor,
        cluster=one.cluster,
        folder=one.folder,
        tags=list(one.tags),
        state=PowerState(one.state) if one.state else None,
        agent=one.agent,
        template=one.template,
        protection=schemas.Protection(one.protection),
        newest_at=one.newest_at,
        newest_point=one.newest_point,
        oldest_at=one.oldest_at,
        points=one.points,
        size=one.size,
        stored=one.stored,
        objective_hours=one.objective,
        due_at=one.due_at,
        jobs=list(one.jobs),
        excluded=one.excluded,
        failure=failure,
        first_seen=one.first_seen,
        seen_at=one.seen_at,
        gone_at=one.gone_at,
    )


def _disk(disk: DiskFacts) -> MachineDisk:
    excluded = Reason(code=ReasonCode(disk.excluded), detail=disk.detail) if disk.excluded else None
    return MachineDisk(
        key=disk.key, size=disk.size, format=Format(disk.format), location=disk.location, excluded=excluded
    )
