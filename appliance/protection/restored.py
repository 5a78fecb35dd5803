"""The databases of an appliance that is made anew: what was true when they were saved is not all true any more."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from appliance import config, databases
from appliance.auditing import caller
from appliance.wiring import Services
from catalog import portable
from catalog.access.store import AccessStore
from catalog.jobs.store import JobStore
from catalog.jobs.values import JobRunState, TaskState
from catalog.portable import Place
from catalog.rebuild import rebuild
from catalog.unit_of_work import Catalog
from proxy.clock import SystemClock
from proxy.errors import LanfreeError
from proxy.model import RestorePoint, RestorePointId
from proxy.repository import Repository

FOLDER = "restored-databases"
"""In the state directory: where databases wait that belong into a server."""

_LOST = "the appliance was lost while this went on"


def place_in(directory: Path) -> Place:
    """SQLite files in a directory."""
    return Place(f"sqlite:///{directory / 'catalog.db'}")


def prepare(directory: Path, point: RestorePoint, repository: Repository, *, own: bool) -> int:
    """Bring saved databases up to date before anybody uses them: their schema; what went on when they were saved has ended;
    the audit log says where they come from. ``own``: the repository is theirs, so that what it got since is listed too; how
    many restore points that are. Raises ``FormatError`` for databases of a newer version."""
    place = place_in(directory)
    portable.bring_up_to_date(place)
    if place.file(portable.JOBS).is_file():
        with JobStore(place.url) as store:
            _end_all(store, SystemClock().now())
    if place.file(portable.ACCESS).is_file():
        with AccessStore(place.url) as access:
            access.forget_passing()
    with Catalog(place.url) as catalog:
        made = point.created_at.isoformat()
        catalog.audit.record(caller(), "bootstrap", point.machine, point.id, {"made_at": made, "host": point.host})
        if not own:
            return 0
        before = _listed(catalog)
        rebuild(catalog, repository)
        return len(_listed(catalog) - before)


def to_server(settings: config.Settings, directory: Path, records: Mapping[str, bytes], *, here: bool) -> list[str]:
    """Bring them to the configured PostgreSQL, if it is empty: where other proxies work on, it is newer than any copy. What was
    done, or is left to do. ``here``: this machine is the one that is configured."""
    target = Place(settings.database.url or "", databases.password(settings))
    later = f"'lanfree database copy --from {directory} --to {target}' brings them there"
    if not here:
        return [f"the databases wait in {directory}: {later}"]
    try:
        if not portable.is_empty(target):
            return [f"{target} has rows and was left as it is; what was saved is in {directory}"]
        rows = sum(portable.transfer(place_in(directory), target).values())
        with Services(settings) as services:
            for name, record in records.items():
                services.shared.put(name, record)
    except LanfreeError as error:
        return [f"the databases wait in {directory}: {error.message}; {later}"]
    return [f"{target} was empty and has {rows} rows now"]


def _end_all(store: JobStore, now: datetime) -> None:
    with store.transaction() as unit:
        for task in unit.tasks.running():
            unit.tasks.end(task.id, TaskState.STOPPED, now, message=_LOST)
        for run in unit.runs.under_way():
            unit.tasks.stop(run.id, now)
            unit.runs.end(run.id, JobRunState.STOPPED, now, notes=[_LOST])
        for proxy in unit.proxies.list():
            unit.proxies.gone(proxy.name)


def _listed(catalog: Catalog) -> set[RestorePointId]:
    with catalog.transaction(write=False) as unit:
        return {listed.point.id for listed in unit.restore_points.list()}
