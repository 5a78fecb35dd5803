"""Whole machines back, for callers of the API."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from api.auth.roles import Caller
from api.refusals import Conflict
from api.schemas import restores as schemas
from api.schemas.common import MachineRef, Refusal
from api.schemas.restores import RestoreOrder, RestorePlan, RestorePreview, RestoreTargets
from api.schemas.tasks import Task
from appliance import operations, restoring
from appliance.auditing import audit
from appliance.restoring import DiskOutlook, Outlook
from appliance.serving import wishes
from appliance.web import asking
from appliance.web.reaching import point_in_reach
from appliance.web.restore_places import HIDDEN, Places, occupant
from appliance.web.tasks import Shown
from appliance.wiring import Services
from catalog.jobs.values import ENDED
from proxy.errors import LanfreeError, MachineNotFound
from proxy.model import RestorePoint, VirtualMachine
from proxy.ports import DiskPlace
from proxy.restore import RestoreRequest

VALID = timedelta(minutes=15)
"""How long the word of a preview is taken: a person has read it by then, or looks again. It is compared with how things are
once more whatever its age."""


class WebRestores:
    """See ``api.ports.restores.Restores``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._places = Places(services)

    def preview(self, caller: Caller, plan: RestorePlan) -> RestorePreview:
        """See the port."""
        point, name = point_in_reach(self._services, caller, plan.point)
        seen = self._outlook(caller, point, plan)
        if isinstance(seen, LanfreeError):
            return _impossible(point, name, plan, seen)
        until = self._services.clock.now() + VALID
        return shown(seen, caller, name, None if seen.refusals else until)

    def order(self, caller: Caller, order: RestoreOrder) -> Task:
        """See the port."""
        services = self._services
        until, digest = _read(order.confirm)
        if until is None or until < services.clock.now():
            raise Conflict("what was shown is too old", hint="look at the preview again, and confirm that")
        point, name = point_in_reach(services, caller, order.point)
        seen = self._outlook(caller, point, order)
        if isinstance(seen, LanfreeError):
            raise seen
        if seen.refusals:
            # As the preview says it: who lives where the caller may not look is nobody's to tell.
            refusal = _refusal(seen.refusals[0], _hidden(seen, caller))
            raise Conflict(refusal.message, hint=refusal.hint)
        if seen.digest != digest:
            changed = restoring.changed(seen.point)
            raise Conflict(changed.message, hint=changed.hint)
        machine = seen.request.machine
        places = {key: str(place) for key, place in machine.disks.items()}
        audit(
            services,
            "restore-machine",
            seen.point,
            who=caller.who,
            name=machine.name,
            host=machine.host,
            disks=places,
            overwrite=order.overwrite,
        )
        wish = wishes.RestoreWish(request=seen.request, confirmed=digest)
        devices = [disk.device for disk in seen.disks if disk.device]
        # The word is good once: said twice it is the same restore, and never another one over what the first one brought.
        key = f"restore {order.confirm}"
        task = asking.ask_restore(services, caller.name, seen.point, name, wish, devices=devices, key=key)
        if task.state in ENDED:
            raise Conflict(f"this restore was ordered already: task {task.id}", hint="look at the preview again")
        with services.jobs.transaction(write=False) as unit:
            return Shown.look(services, unit, [task])[0]

    def targets(self, caller: Caller) -> RestoreTargets:
        """See the port."""
        return self._places.look(caller)

    def _outlook(self, caller: Caller, point: RestorePoint, plan: RestorePlan) -> Outlook | LanfreeError:
        """What stands against it from the beginning, where it cannot even be looked at."""
        try:
            request = request_of(self._services, point, plan)
            if plan.attach:
                into = self._services.hypervisor.machine(plan.attach)
                if not caller.sees(into.id, into.name):
                    return MachineNotFound(plan.attach)
        except LanfreeError as error:
            return error
        seen = restoring.outlook(self._services, request)
        replaced = seen.original if seen.effect == "replaced" else None
        if replaced is not None and not caller.sees(replaced.id, replaced.name):
            return MachineNotFound(point.machine)
        return seen


def request_of(services: Services, point: RestorePoint, plan: RestorePlan) -> RestoreRequest:
    """The restore that a plan means, under a run that is no attempt's yet. Raises ``ConfigurationError``."""
    disks = {key: _place(key, place) for key, place in plan.disks.items()}
    machine = restoring.machine_to_make(services, point, plan.name, disks, plan.host)
    return RestoreRequest(
        run=operations.new_run("r"),
        point=point.id,
        machine=replace(
            machine,
            connected=plan.connected,
            without_hosts=frozenset(plan.without_hosts),
            folder=plan.folder,
            pool=plan.pool,
            networks=dict(plan.networks),
        ),
        overwrite=plan.overwrite,
        define=not (plan.disks_only or plan.attach),
        attach=plan.attach or None,
        unidentified=plan.unidentified,
        differential=plan.differential,
        compare=plan.compare,
    )


def _place(key: str, place: schemas.Place) -> DiskPlace:
    match place:
        case schemas.LunPlace():
            return DiskPlace(target=place.target, lun=place.lun)
        case schemas.PathPlace():
            return DiskPlace(path=place.path)
        case schemas.DatastorePlace():
            return DiskPlace(datastore=place.datastore, path=place.path, disk=key)


def shown(seen: Outlook, caller: Caller, name: str, until: datetime | None) -> RestorePreview:
    """As a caller may see it. ``until``: for how long the word is taken; ``None``: there is none."""
    point, machine = seen.point, seen.request.machine
    hidden = _hidden(seen, caller)
    return RestorePreview(
        point=point.id,
        machine=MachineRef(id=point.machine, name=name),
        taken_at=point.created_at,
        consistency=point.consistency.value,
        result=schemas.PlannedMachine(
            name=machine.name,
            host=machine.host,
            effect=seen.effect,
            now=restoring.state_of(seen.original),
            connected=machine.connected,
        ),
        disks=[_disk(disk, caller) for disk in seen.disks],
        total_bytes=sum(disk.image.size for disk in seen.disks),
        estimated_seconds=seen.seconds,
        left_out=seen.left_out,
        warnings=seen.warnings,
        refusals=tuple(_refusal(error, hidden) for error in seen.refusals),
        confirm=None if until is None else f"{int(until.timestamp()):x}.{seen.digest}",
        valid_until=until,
    )


def _hidden(seen: Outlook, caller: Caller) -> set[str]:
    """Names of machines on the disks' places that the caller does not see."""
    return {m.name for disk in seen.disks for m in _others(disk) if not caller.sees(m.id, m.name)}


def _others(disk: DiskOutlook) -> Iterator[VirtualMachine]:
    return (occupant.machine for occupant in disk.occupants)


def _disk(disk: DiskOutlook, caller: Caller) -> schemas.PlannedDisk:
    place = disk.place
    return schemas.PlannedDisk(
        key=disk.image.key,
        size=disk.image.size,
        data=disk.data,
        place=str(place),
        kind="datastore" if place.datastore else "path" if place.path else "lun",
        device=disk.device,
        effect=disk.effect,
        content=disk.content,
        occupants=tuple(occupant(each.machine, each.disk, caller, same=each.same) for each in disk.occupants),
    )


def _refusal(error: LanfreeError, hidden: set[str]) -> Refusal:
    if any(name and name in error.message for name in hidden):
        return Refusal(code=error.code, message=f"{HIDDEN.name} has a disk there", hint="name an unused place")
    return Refusal(code=error.code, message=error.message, hint=error.hint or "")


def _impossible(point: RestorePoint, name: str, plan: RestorePlan, error: LanfreeError) -> RestorePreview:
    """A plan that means nothing: there is no more to say than why."""
    effect = "attached" if plan.attach else "disks-only" if plan.disks_only else "new" if plan.name else "recreated"
    return RestorePreview(
        point=point.id,
        machine=MachineRef(id=point.machine, name=name),
        taken_at=point.created_at,
        consistency=point.consistency.value,
        result=schemas.PlannedMachine(name=plan.name or name, host=plan.host or point.host, effect=effect),
        disks=[],
        total_bytes=0,
        refusals=(_refusal(error, set()),),
    )


def _read(confirm: str) -> tuple[datetime | None, str]:
    moment, _, digest = confirm.partition(".")
    try:
        return datetime.fromtimestamp(int(moment, 16), UTC), digest
    except (ValueError, OverflowError, OSError):
        return None, ""
