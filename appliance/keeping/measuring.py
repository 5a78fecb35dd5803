"""What a repository holds, measured now and then and kept: a measurement reads all its indexes, which nobody waits for who only
opens a page."""

from dataclasses import asdict
from datetime import datetime
from time import perf_counter

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance.keeping.maintenance import opened
from appliance.wiring import Services

_MACHINES = 1000
"""Machines of which the shares are kept, those that take most; a page shows fewer, and the record is read for each look."""


class MachineShare(BaseModel):
    """Bytes, see ``proxy.repository.checking.report``."""

    model_config = ConfigDict(frozen=True)
    machine: str
    machine_name: str
    points: int
    logical: int
    unique: int
    compressed: int
    exclusive: int


class Total(BaseModel):
    """Of the whole repository, see ``proxy.repository.checking.report.Statistics``."""

    model_config = ConfigDict(frozen=True)
    machines: int
    points: int
    damaged_points: int
    damaged_images: int
    packs: int
    chunks: int
    logical: int
    referenced: int
    unique: int
    compressed: int
    dead: int
    stored: int
    deduplication: float
    compression: float


class Measured(BaseModel):
    """At one time. ``seconds``: how long it took."""

    model_config = ConfigDict(frozen=True)
    at: datetime
    seconds: float
    total: Total
    machines: tuple[MachineShare, ...] = ()


def measure(services: Services, repository: str) -> Measured:
    """Our own repository, or the ``[[copy_to]]`` of this name; kept until it is measured again. Raises
    ``RepositoryUnavailable``."""
    from proxy.repository.checking.report import make_report  # noqa: PLC0415  # brings numpy

    began = perf_counter()
    with opened(services, repository) as place:
        found = make_report(place)
        identity = place.settings.id.hex()
    total = found.total
    derived = {"dead": total.dead, "deduplication": total.deduplication, "compression": total.compression}
    measured = Measured(
        at=services.clock.now(),
        seconds=round(perf_counter() - began, 3),
        total=Total.model_validate({**asdict(total), **derived}),
        machines=tuple(MachineShare.model_validate(asdict(one)) for one in found.machines[:_MACHINES]),
    )
    services.shared.put(_record(identity), measured.model_dump_json().encode())
    return measured


def last_measured(services: Services, identity: str) -> Measured | None:
    """Of the repository of this id (hexadecimal), as it was measured last; ``None`` if it never was, or by another version."""
    kept = services.shared.get(_record(identity))
    try:
        return None if kept is None else Measured.model_validate_json(kept)
    except ValidationError:
        return None


def _record(identity: str) -> str:
    return f"measured/{identity}"
