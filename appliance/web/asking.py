"""Work that a person asks for: a task that any proxy that serves takes, under the limits that its keys say."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from appliance.selecting import facts_of, path_of_directory, places_to_write, targets_of
from appliance.serving import wishes
from appliance.wiring import Services
from catalog.jobs import limits
from catalog.jobs.values import Task, TaskKind, TaskState
from proxy.model import MachineId, Reason, ReasonCode, RestorePoint, RestorePointId, VirtualMachine

BEGIN_WITHIN = timedelta(hours=1)
"""What writes to somebody else's disks is begun while whoever asked still counts on it, or not at all (ADR 4)."""

_SITE = "site"
"""Key of what is about all hypervisors."""


def ask(
    services: Services,
    who: str,
    kind: TaskKind,
    parameters: Mapping[str, object] | BaseModel | None = None,
    *,
    machine: tuple[MachineId, str] = ("", ""),
    point: RestorePointId | None = None,
    target: str = "",
    host: str = "",
    keys: Sequence[str] = (),
    key: str = "",
) -> Task:
    """It waits for a proxy from now on. ``keys``: what it occupies; those of its kind where none are given. ``target``: name of
    another repository, or of what it goes to. ``key``: with the same one the same person gets the same task."""
    return _put(services, wish(services, who, kind, parameters, machine, point, target, host, keys), key)


def wish(  # noqa: PLR0917  # see ask
    services: Services,
    who: str,
    kind: TaskKind,
    parameters: Mapping[str, object] | BaseModel | None,
    machine: tuple[MachineId, str],
    point: RestorePointId | None,
    target: str,
    host: str,
    keys: Sequence[str],
) -> Task:
    """The task as it would be asked for."""
    now = services.clock.now()
    dumped = parameters.model_dump(mode="json") if isinstance(parameters, BaseModel) else dict(parameters or {})
    id_, name = machine
    return Task(
        id=f"t{now:%Y%m%d%H%M%S}-{secrets.token_hex(4)}",
        job_run="",
        kind=kind,
        state=TaskState.WAITING,
        machine=id_,
        machine_name=name,
        host=host,
        keys=(*limits.own_key(id_, kind.value), *(keys or _of_kind(services, kind, target))),
        target=target,
        point=point,
        deadline=now + BEGIN_WITHIN if kind in wishes.NEVER_AGAIN else None,
        reasons=(Reason(ReasonCode.ASKED_FOR, f"by {who}"),),
        asked_by=who,
        parameters=dumped,
        created_at=now,
    )


def ask_backup(
    services: Services,
    who: str,
    machine: VirtualMachine,
    wanted: wishes.BackupWish,
    *,
    full: bool = False,
    exclude: frozenset[str] = frozenset(),
    key: str = "",
) -> Task:
    """One machine now. The restore point follows the configuration's retention: it is no job's."""
    where = facts_of(services).of(machine)
    repository = services.repository
    new = not repository.manifests(machine.id)
    keys = [
        limits.key(limits.HOST, where.host),
        *(limits.key(limits.PLACE, place) for place in where.places),
        limits.key(limits.REPOSITORY, repository.settings.id.hex()),
        *([limits.key(limits.FULL, limits.key(limits.HOST, where.host))] if full or new else []),
    ]
    named = (machine.id, machine.name)
    task = wish(services, who, TaskKind.BACKUP, wanted, named, None, "", where.host, keys)
    return _put(services, replace(task, full=full, exclude=exclude, paths=where.paths), key)


def ask_restore(
    services: Services,
    who: str,
    point: RestorePoint,
    name: str,
    wanted: wishes.RestoreWish,
    *,
    devices: Sequence[str] = (),
    key: str = "",
) -> Task:
    """One machine back. While it goes on nothing else is done to the machine, nor to one that is given a disk, and no other
    restore writes to the same device on any proxy. ``devices``: what the places were found to be; the same device may have
    several names."""
    request = wanted.request
    devices = sorted({*devices, *targets_of(request)})
    keys = [
        limits.key(limits.HOST, request.machine.host),
        *(limits.key(limits.PLACE, place) for place in places_to_write(services, request)),
        *(limits.key(limits.TARGET, device) for device in devices),
        *([limits.key(limits.MACHINE, request.attach)] if request.attach else []),
    ]
    named = (point.machine, name)
    task = wish(services, who, TaskKind.RESTORE, wanted, named, point.id, "", request.machine.host, keys)
    shared = services.settings.raw.shared_directories
    files = [Path(place.path) for place in request.machine.disks.values() if place.path and not place.datastore]
    paths = (path_of_directory(each) for each in shared if any(file.is_relative_to(each) for file in files))
    return _put(services, replace(task, paths=frozenset(paths)), key)


def _put(services: Services, task: Task, key: str) -> Task:
    with services.jobs.transaction() as unit:
        return unit.tasks.ask(task, key)


def _of_kind(services: Services, kind: TaskKind, target: str) -> tuple[str, ...]:
    if kind in {TaskKind.SWEEP, TaskKind.INVENTORY}:
        return (limits.key(kind.value, _SITE),)
    if kind in {TaskKind.INDEX, TaskKind.FILES}:
        return ()
    # Pruning ends with collection: the two share a key.
    word = TaskKind.PRUNE if kind is TaskKind.COLLECT else kind
    return (limits.key(word.value, target or services.repository.settings.id.hex()),)
