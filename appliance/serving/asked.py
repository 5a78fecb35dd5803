"""What a person asked for that is no backup and no restore of a machine: done in one step, and done again it goes on."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from importlib import import_module

from appliance import operations
from appliance.keeping import lines, measuring
from appliance.keeping.maintenance import opened
from appliance.serving import wishes
from appliance.serving.controls import RunControl
from appliance.serving.performing import Done
from appliance.wiring import Services
from catalog.jobs.values import Task, TaskKind
from proxy.errors import Cancelled, LanfreeError
from proxy.model import RestorePointId, RunId

_PATIENCE = 0.5
"""Seconds of a pause between two looks whether it is to end."""

_PROBLEMS = 200
"""Problems that a task keeps."""

_BY_NAME: Mapping[TaskKind, tuple[str, str]] = {
    TaskKind.INVENTORY: ("appliance.web.inventory_refresh", "refresh"),
    TaskKind.FILES: ("appliance.web.file_tasks", "restore_files"),
}
"""Kinds whose work lives with the resource that asks for it: module and function, imported when it is done."""

Live = Callable[[], Collection[RunId]]
"""Runs that somebody works on."""


def perform(services: Services, task: Task, live: Live) -> Done:
    """Do it. Raises ``Cancelled``, and what stops all of it; what concerns one restore point is among the problems."""
    control = services.controls.of(task.run)
    if task.kind is TaskKind.SWEEP:
        done = _sweep(services, control, live)
    elif task.kind in _WORK:
        done = _WORK[task.kind](services, task, control)
    else:
        done = _by_name(services, task, control)
    return replace(done, problems=first(done.problems))


def first(problems: Sequence[str]) -> tuple[str, ...]:
    """As many as people read: a lost disk damages every restore point, and a task is one row."""
    more = len(problems) - _PROBLEMS
    return tuple(problems) if more <= 0 else (*problems[:_PROBLEMS], f"and {more} more")


def _by_name(services: Services, task: Task, control: RunControl) -> Done:
    if task.kind in _BY_NAME:
        module, name = _BY_NAME[task.kind]
        done: Done = getattr(import_module(module), name)(
            services, task.parameters, cancelled=control.cancelled, progress=control.note, say=control.say
        )
        return done
    raise LanfreeError(f"tasks of kind {task.kind.value} are not known to this version")


def rebuild(services: Services, task: Task) -> tuple[int, Sequence[RestorePointId]]:
    """Make the catalog's list again; how many restore points it has, and those whose files are to be recorded."""
    services.controls.of(task.run).say("reading the repository's list")
    missing = operations.rebuild_catalog(services)
    return len(operations.points_of(services, None)), missing


def to_index(services: Services, task: Task) -> Sequence[RestorePointId]:
    """Restore points whose files are to be recorded, oldest first: that order records fastest."""
    from appliance.keeping.recorded import unrecorded  # noqa: PLC0415  # brings the repository's listing

    wish = wishes.read(wishes.IndexWish, task)
    return [services.repository.point(name).id for name in wish.points] if wish.points else unrecorded(services)


def _verify(services: Services, task: Task, control: RunControl) -> Done:
    from appliance.inventory import note_standings  # noqa: PLC0415  # brings hypervisors
    from appliance.keeping.verifying import verify_run, verify_some  # noqa: PLC0415  # brings its part of the repository

    wish = wishes.read(wishes.VerifyWish, task)
    # Read anew whatever was verified lately; an attempt that was cut off goes on where it was.
    fresh = max(services.clock.now() - (task.created_at or services.clock.now()), timedelta(0))
    wanted = [services.repository.point(name).id for name in wish.points]
    for machine in wish.machines:
        wanted += [point.id for point in services.repository.points(machine)]
    if wanted or wish.points or wish.machines:
        report = verify_run(
            services, wanted, fresh=fresh, deep=wish.deep, cancelled=control.cancelled, progress=control.note
        )
        damage, points, checked = report.damage, report.points, report.bytes_checked
    else:
        found, checked = verify_some(
            services,
            None,
            fresh,
            share=wish.share,
            deep=wish.deep,
            cancelled=control.cancelled,
            progress=control.note,
        )
        damage, points = tuple(found), len(services.repository.ledger.names())
    with suppress(LanfreeError):  # lists learn it later in any case
        note_standings(services, wanted)
    known: dict[str, object] = {"points": points, "bytes_checked": checked, "damaged": len(damage)}
    return Done(problems=tuple(f"damaged: {each}" for each in damage), result=known)


def _prune(services: Services, task: Task, control: RunControl) -> Done:
    from appliance.keeping.pruning import prune, prune_run  # noqa: PLC0415

    if wishes.read(wishes.PruneWish, task).dry_run:
        remarks: list[str] = []
        control.say("asking the rules about every restore point")
        found = prune(services, apply=False, told=remarks.append, repository=task.target, cancelled=control.cancelled)
        keep = sum(line.keep for line in found)
        shown = lines.kept(sorted(found, key=lambda line: line.keep), lines.pruned)  # what would go comes first
        return Done(
            problems=tuple(remarks), result={"dry_run": True, "remove": len(found) - keep, "keep": keep, **shown}
        )
    done = prune_run(services, task.target, cancelled=control.cancelled, progress=control.note)
    removed = sum(line.removed for line in done.lines)
    known: dict[str, object] = {
        "dry_run": False,
        "removed": removed,
        "kept": len(done.lines) - removed,
        "freed": done.collected.freed if done.collected else 0,
        **lines.kept((line for line in done.lines if not line.keep), lines.pruned),
    }
    return Done(problems=done.problems, result=known)


def _repair(services: Services, task: Task, control: RunControl) -> Done:
    from appliance.keeping.repairing import repair_run  # noqa: PLC0415

    wish = wishes.read(wishes.RepairWish, task)
    control.say("verifying")
    found = repair_run(services, task.target, wish.only, cancelled=control.cancelled, progress=control.note)
    left = [each for each in found if each.why]
    known: dict[str, object] = {
        "damaged": len(found),
        "mended": len(found) - len(left),
        "bytes_mended": sum(each.mended for each in found),
        **lines.kept(sorted(found, key=lambda each: not each.why), lines.repaired),  # what stays damaged comes first
    }
    problems = (f"{one.damage.machine_name}, restore point {one.damage.point}: {one.why}" for one in left)
    return Done(problems=tuple(problems), result=known)


def _audit(services: Services, task: Task, control: RunControl) -> Done:
    from appliance.keeping.maintenance import audited  # noqa: PLC0415

    wish = wishes.read(wishes.AuditWish, task)
    control.say("reading every chain")
    found = audited(services, (), publish=wish.publish)
    known: dict[str, object] = {
        "tampered": found.tampered,
        "notes": found.notes,
        "unreadable": list(found.unreadable[: lines.MOST]),
        "published": list(found.published),
        "unpublished": list(found.unpublished),
        **lines.kept(found.findings, lines.finding),
    }
    wrong = [one for one in found.findings if not one.trouble.notice]
    problems = [
        f"{one.trouble.value}: {one.machine_name or one.chain}, restore point {one.point}: {one.why}" for one in wrong
    ]
    return Done(problems=(*problems, *(f"not noted by {each}" for each in found.unpublished)), result=known)


def _protect(services: Services, _task: Task, control: RunControl) -> Done:
    from appliance.protection.backup import protect  # noqa: PLC0415  # brings the databases

    control.say("reading configuration, keys and databases")
    report = protect(services)
    known: dict[str, object] = {
        "enabled": report.enabled,
        "size": report.size,
        "files": len(report.files),
        "remarks": list(report.remarks),
        **lines.kept(report.targets, lines.protected),
    }
    return Done(problems=report.problems, result=known)


def _collect(services: Services, task: Task, control: RunControl) -> Done:
    from proxy.repository.collection.collect import collect  # noqa: PLC0415  # brings numpy

    wish = wishes.read(wishes.CollectWish, task)

    def pause(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            _check(control, "the collection")
            time.sleep(min(left, _PATIENCE))

    def told(machines: int, points: int) -> None:
        _check(control, "the collection")
        control.say(f"{machines} machines and {points} restore points looked at")

    with opened(services, task.target) as place:
        report = collect(place, dry_run=wish.dry_run, progress=told, pause=pause)
    known: dict[str, object] = {
        "dry_run": report.dry_run,
        "points": report.points,
        "freed": report.freed,
        "promised": max(report.promised, 0),
        "deleted": len(report.deleted),
        "doomed": len(report.doomed),
        "compacted": len(report.compacted),
        "waiting": [waiting.why for waiting in report.waiting],
    }
    missing = (f"{len(report.missing)} chunks that restore points need are in no pack",) if report.missing else ()
    return Done(problems=missing, result=known)


def _copy(services: Services, task: Task, control: RunControl) -> Done:
    from appliance.keeping.copying import copy_run, pull_run  # noqa: PLC0415
    from proxy.repository.selection import Selection  # noqa: PLC0415

    wish = wishes.read(wishes.CopyWish, task)
    wanted = Selection(frozenset(wish.machines), wish.points, wish.newest, wish.since)
    run = pull_run if wish.pull else copy_run
    done = run(
        services, task.target, wanted, read_back=wish.read_back, cancelled=control.cancelled, progress=control.note
    )
    known: dict[str, object] = {
        "copied": sum(each.outcome.value == "copied" for each in done.copied),
        "points": len(done.copied),
        "bytes_read": sum(each.bytes_read for each in done.copied),
        "bytes_stored": sum(each.bytes_stored for each in done.copied),
    }
    return Done(problems=done.problems, result=known)


def _sweep(services: Services, control: RunControl, live: Live) -> Done:
    control.say("looking at all hosts")
    found = operations.sweep(services, live)
    return Done(result={"found": found})


def _measure(services: Services, task: Task, control: RunControl) -> Done:
    control.say("reading the repository's indexes")
    measured = measuring.measure(services, task.target)
    return Done(result=measured.total.model_dump(mode="json"))


def _check(control: RunControl, what: str) -> None:
    if control.cancelled():
        raise Cancelled(what)


_WORK: Mapping[TaskKind, Callable[[Services, Task, RunControl], Done]] = {
    TaskKind.VERIFY: _verify,
    TaskKind.PRUNE: _prune,
    TaskKind.COLLECT: _collect,
    TaskKind.COPY: _copy,
    TaskKind.MEASURE: _measure,
    TaskKind.REPAIR: _repair,
    TaskKind.AUDIT: _audit,
    TaskKind.PROTECT: _protect,
}
