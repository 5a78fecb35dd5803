"""What commands and workflows ask of the wired appliance: a few lines each, over the parts in ``Services``."""

import secrets
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from appliance.config import Host
from appliance.wiring import Services
from proxy.errors import ConfigurationError, LanfreeError, MachineNotFound
from proxy.model import LunAddress, MachineId, RestorePoint, RestorePointId, RunId, VirtualMachine
from proxy.ports import Progress, ProgressSink

if TYPE_CHECKING:
    from catalog.unit_of_work import Unit
    from proxy.repository import Damage


@dataclass(frozen=True, slots=True)
class Depth:
    """How thoroughly to verify. ``share`` of the packs, those first that were not read for the longest time; ``max_age``: what
    was read and right since is not read again; ``deep``: also decompress each chunk and compare its id."""

    share: float = 1.0
    max_age: timedelta = timedelta(0)
    deep: bool = True


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification looked at (bytes as stored) and found."""

    points: int
    bytes_checked: int
    damage: "tuple[Damage, ...]"


def machine_named(services: Services, name: str) -> VirtualMachine:
    """By identity or by name. Raises ``MachineNotFound``, ``ConfigurationError`` when a name is not unique."""
    found = [m for m in services.hypervisor.machines() if name in (m.id, m.name)]
    exact = [m for m in found if m.id == name]
    if len(exact or found) > 1:
        raise ConfigurationError(name, f"{len(found)} machines have this name", hint="give the identity instead")
    if not found:
        raise MachineNotFound(name)
    return (exact or found)[0]


def points_of(services: Services, name: str | None) -> Sequence[RestorePoint]:
    """Restore points of one machine by name or identity (it need not exist any more), or of all machines; of the appliance's
    own state only by name. Oldest first."""
    points = services.repository.points()
    if name is None:
        return [point for point in points if not point.of_appliance]
    wanted = [point for point in points if name in (point.machine, point.machine_name)]
    if not wanted:
        raise MachineNotFound(name)
    return wanted


def newest_points(services: Services) -> Mapping[MachineId, RestorePoint]:
    """The newest restore point of each machine that has one."""
    return {point.machine: point for point in services.repository.points()}


def try_host(services: Services, host: Host) -> int:
    """Connect to a host that is not configured yet; how many machines it has. Raises ``HostUnreachable``."""
    site = services.site((host,))
    try:
        return len(site.machines())
    finally:
        site.close()


def portal_of(services: Services, target: str) -> str:
    """A portal at which hosts reach a host-side target: as their machines use it, else as the proxy does."""
    for machine in services.hypervisor.machines():
        for disk in machine.disks:
            if isinstance(disk.location, LunAddress) and disk.location.target == target and disk.location.portals:
                return disk.location.portals[0]
    for known in services.settings.san.target:
        if target == known.iqn or target in known.presents:
            return known.portals[0]
    raise ConfigurationError(
        str(services.settings.source),
        f"nothing tells at which portal the target {target} is",
        hint="add a [[san.target]]",
    )


def new_identity() -> MachineId:
    """An identity that no machine has."""
    return str(uuid.uuid4())


def new_run(kind: str) -> RunId:
    """A run id: readable, unique, short enough for names of files, bitmaps and locks."""
    return f"{kind}{datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(4)}"


def verify_points(
    services: Services, point: str | None, progress: ProgressSink | None, depth: Depth | None = None
) -> VerifyReport:
    """Read back and check one restore point, or all. Raises ``RestorePointNotFound``."""
    depth = depth or Depth()
    repository = services.repository
    points = [repository.point(point)] if point else repository.points()
    # Imported when it is needed: it brings numpy, which most commands do without.
    from proxy.repository import VerifyProgress, verify  # noqa: PLC0415

    seen = VerifyProgress(0, 0)

    def note(event: VerifyProgress) -> None:
        nonlocal seen
        seen = event
        if progress is not None:
            progress(Progress("chunks", event.done, event.total, event.done))

    wanted = points[0].id if point else None
    damage = tuple(verify(repository, wanted, progress=note, share=depth.share, max_age=depth.max_age, deep=depth.deep))
    return VerifyReport(len(points), seen.done, damage)


def record(services: Services, point: RestorePoint) -> str:
    """List a new restore point in the catalog. Returns what went wrong: the backup is good without it."""
    return in_catalog(services, lambda unit: unit.restore_points.add(point))


def sweep(services: Services, live: Callable[[], Collection[RunId]]) -> list[str]:
    """Undo what dead runs left on the hosts; what was found, for people. A host that is silent does not stop the start."""
    try:
        found = services.hypervisor.sweep(live)
    except ConfigurationError as error:
        configured = services.settings.host or services.settings.vcenter
        return [f"could not look for leftovers: {error}"] if configured else []
    except LanfreeError as error:
        return [f"could not look for leftovers: {error}"]
    return [f"{reason.code.value}: {reason.detail}" for reason in found]


def note_start(services: Services, run: RunId, kind: str, machine: MachineId) -> str:
    """Keep a record of the run for people. Returns what went wrong."""
    return in_catalog(services, lambda unit: unit.runs.start(run, machine, machine, kind, services.clock.now()))


def note_end(services: Services, run: RunId, point: RestorePointId | None, error: Exception | None) -> str:
    """How the run ended. Returns what went wrong with writing it down."""
    known = error if isinstance(error, LanfreeError) or error is None else LanfreeError(repr(error))
    return in_catalog(services, lambda unit: unit.runs.finish(run, services.clock.now(), point=point, error=known))


def in_catalog(services: Services, write: "Callable[[Unit], None]") -> str:
    """One transaction; what went wrong with it, or nothing: the repository is right without the catalog. A database that is
    away is waited for, until this process is told to end: what only it knows would else be missing until a rebuild."""
    from catalog.database import patient  # noqa: PLC0415  # see Services.catalog

    @patient(services.cancelled)
    def transaction() -> None:
        with services.catalog.transaction() as unit:
            write(unit)

    try:
        transaction()
    except LanfreeError as error:
        return f"not written to the catalog: {error} ({error.hint})"
    return ""


def rebuild_catalog(services: Services) -> Sequence[RestorePointId]:
    """catalog := f(repository); the restore points whose files are not recorded."""
    from catalog.rebuild import rebuild  # noqa: PLC0415  # see Services.catalog

    return rebuild(services.catalog, services.repository)
