"""``api.ports.points`` over catalog and repository."""

from collections.abc import Sequence
from contextlib import suppress

from api.auth.roles import Caller
from api.paging import Page, decode, encode
from api.schemas.common import Reason
from api.schemas.points import (
    Copy,
    Health,
    Hold,
    Image,
    PointFilter,
    PointSort,
    RestorePoint,
    RestorePointDetail,
    Verification,
)
from api.schemas.sizes import SizeExplanation
from appliance.auditing import audit
from appliance.keeping import pruning
from appliance.keeping.maintenance import copy_repository
from appliance.web.reaching import point_in_reach
from appliance.web.sizes import Sizes
from appliance.wiring import Services
from catalog import point_list
from catalog.point_list import PointLine
from catalog.restore_points import ListedPoint
from proxy import model
from proxy.errors import FormatError, LanfreeError, RepositoryUnavailable, RestorePointNotFound
from proxy.model import Consistency, ImageInfo, Level, MachineId, RestorePointId
from proxy.repository import Repository


class WebPoints:
    """Lists come from the catalog; what counts for one restore point comes from the repository."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sizes = Sizes(services)

    def page(self, caller: Caller, query: PointFilter, machine: MachineId = "") -> Page[RestorePoint]:
        """See the port."""
        after = tuple(decode(query.cursor, 2)) if query.cursor is not None else None
        wanted = point_list.PointQuery(
            machine=machine,
            since=query.since,
            until=query.until,
            levels=tuple(query.level),
            consistencies=tuple(query.consistency),
            held=query.held,
            machines=caller.machines,
        )
        with self._services.catalog.transaction(write=False) as unit:
            found, following = unit.points.page(
                wanted, newest_first=query.sort is PointSort.NEWEST, limit=query.limit, after=after
            )
        return Page(items=[shown(line) for line in found], next=encode(*following) if following else None)

    def get(self, caller: Caller, point: RestorePointId, *, copies: bool = False) -> RestorePointDetail:
        """See the port."""
        services = self._services
        point_in_reach(services, caller, point)
        with services.catalog.transaction(write=False) as unit:
            listed, line = unit.restore_points.get(point), unit.points.get(point)
            reasons = unit.files.index_reasons(point) if listed.files_indexed_at is not None else ()
        if line is None:
            raise RestorePointNotFound(point)
        kind, verification, hold = self._stands(listed.point, line)
        state = {"held": hold is not None or line.held, "health": verification.health}
        return RestorePointDetail(
            **{**shown(line).model_dump(), **state, "verified_at": verification.verified_at},
            **_told(listed),
            configuration=kind,
            verification=verification,
            hold=hold,
            copies=self._copies(listed.point) if copies else None,
            index_reasons=Reason.all_of(reasons),
        )

    def why_big(self, caller: Caller, point: RestorePointId, most: int, *, quick: bool) -> SizeExplanation:
        """See the port."""
        return self._sizes.why_big(caller, point, most, quick=quick)

    def hold(self, caller: Caller, point: RestorePointId, why: str) -> None:
        """See the port."""
        found, _ = point_in_reach(self._services, caller, point)
        audit(self._services, "hold-point", found, who=caller.who, why=why)
        self._services.repository.ledger.hold(found.id, why)
        self._note(found.id, held=True)

    def release(self, caller: Caller, point: RestorePointId) -> None:
        """See the port."""
        found, _ = point_in_reach(self._services, caller, point)
        audit(self._services, "release-point", found, who=caller.who)
        self._services.repository.ledger.release_hold(found.id)
        self._note(found.id, held=False)

    def check_deletable(self, caller: Caller, point: RestorePointId) -> None:
        """See the port."""
        found, _ = point_in_reach(self._services, caller, point)
        self._services.repository.ledger.check_deletable(found)

    def delete(self, caller: Caller, point: RestorePointId, why: str) -> None:
        """See the port."""
        found, _ = point_in_reach(self._services, caller, point)
        audit(self._services, "delete-point", found, who=caller.who, why=why)
        pruning.delete_point(self._services, found.id, f"{why} ({caller.who})")

    def _note(self, point: RestorePointId, *, held: bool) -> None:
        with self._services.catalog.transaction() as unit:
            unit.inventory.hold(point, held=held)

    def _stands(self, point: model.RestorePoint, line: PointLine) -> tuple[str, Verification, Hold | None]:
        """Its configuration's dialect, last verification and hold, from the repository; from the catalog where that is away.
        Raises ``RestorePointNotFound`` for one that was deleted and is still listed."""
        known = Verification(health=Health(line.health), verified_at=line.verified_at)
        try:
            return _of_ledger(self._services.repository, point, known)
        except RepositoryUnavailable:
            return "", known, None

    def _copies(self, point: model.RestorePoint) -> list[Copy]:
        found: list[Copy] = []
        for section in self._services.settings.copy_to:
            try:
                with copy_repository(self._services, section.name) as other:
                    found.append(Copy(repository=section.name, there=other.ledger.has(point)))
            except LanfreeError as error:
                found.append(Copy(repository=section.name, there=None, problem=error.message))
        return found


def shown(line: PointLine) -> RestorePoint:
    """As the API has it."""
    return RestorePoint(
        id=line.id,
        machine=line.machine,
        machine_name=line.machine_name,
        host=line.host,
        hypervisor=line.hypervisor,
        created_at=line.created_at,
        sealed_at=line.sealed_at,
        level=Level(line.level),
        consistency=Consistency(line.consistency),
        transports=list(line.transports),
        disks=line.disks,
        size=line.size,
        bytes_read=line.bytes_read,
        bytes_new=line.bytes_new,
        bytes_stored=line.bytes_stored,
        frozen_seconds=line.frozen_seconds,
        files_indexed=line.files_indexed_at is not None,
        held=line.held,
        health=Health(line.health),
        verified_at=line.verified_at,
    )


def _of_ledger(
    repository: Repository, point: model.RestorePoint, known: Verification
) -> tuple[str, Verification, Hold | None]:
    ledger = repository.ledger
    kind, hold = "", None
    try:
        kind = ledger.read(ledger.name(point)).point.configuration.kind
    except FileNotFoundError:
        raise RestorePointNotFound(point.id) from None
    except FormatError:
        known = Verification(health=Health.DAMAGED, verified_at=known.verified_at, doubt="its manifest cannot be read")
    with suppress(FormatError):
        held = ledger.holds.get(ledger.name(point))
        hold = Hold(since=held.since, why=held.why) if held is not None else None
    judged = ledger.health(point)
    if judged is not None:
        known = Verification(
            health=Health(judged.health.value),
            verified_at=judged.verified_at,
            coverage=judged.coverage,
            damaged=judged.damaged,
            doubt=judged.doubt,
        )
    return kind, known, hold


def _told(listed: ListedPoint) -> dict[str, object]:
    point = listed.point
    return {
        "run": point.run,
        "parent": point.parent,
        "reasons": Reason.all_of(point.reasons),
        "images": _images(point.images),
        "files_indexed_at": listed.files_indexed_at,
    }


def _images(images: Sequence[ImageInfo]) -> list[Image]:
    return [
        Image(
            key=image.key,
            size=image.size,
            level=image.level,
            transport=image.transport,
            source=image.source,
            bytes_read=image.bytes_read,
            bytes_new=image.bytes_new,
            bytes_stored=image.bytes_stored,
            reasons=Reason.all_of(image.reasons),
        )
        for image in images
    ]
