"""Restore points as the API shows them, for what the console draws of one."""

from datetime import UTC, datetime
from typing import Any

from api.schemas.points import Health, Image, RestorePointDetail, Verification
from proxy.model import Consistency, Level

MOMENT = datetime(2026, 11, 1, 1, 0, tzinfo=UTC)
COUNTED = {"size": 1 << 30, "bytes_read": 1, "bytes_new": 1, "bytes_stored": 1}


def image(key: str, source: str = "", transport: str = "san") -> Image:
    """A disk, all of it read."""
    return Image(key=key, level=Level.FULL, transport=transport, source=source, reasons=[], **COUNTED)


def point(*images: Image, **other: Any) -> RestorePointDetail:
    """Of the KVM machine db-07; ``other``: fields that are otherwise."""
    facts = {
        "id": "p1",
        "machine": "id-db",
        "machine_name": "db-07",
        "host": "h1",
        "hypervisor": "h1",
        "created_at": MOMENT,
        "level": Level.FULL,
        "consistency": Consistency.CRASH,
        "transports": sorted({each.transport for each in images}),
        "disks": len(images),
        "frozen_seconds": 0.0,
        "files_indexed": False,
        "held": False,
        "health": Health.UNKNOWN,
        "run": "r",
        "reasons": [],
        "images": list(images),
        "configuration": "libvirt-xml",
        "verification": Verification(health=Health.UNKNOWN),
        **COUNTED,
        **other,
    }
    return RestorePointDetail.model_validate(facts)
