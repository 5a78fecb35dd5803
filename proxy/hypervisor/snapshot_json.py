"""A ``Snapshot`` as JSON values and back, for the records that drivers keep of their runs.

A location says of which ``kind`` it is: a name of ``KINDS``, which stays what it is: an older version may have written it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from proxy.model import (
    Consistency,
    DeviceAddress,
    FileAddress,
    Format,
    FrozenDisk,
    Layer,
    Location,
    LunAddress,
    NbdAddress,
    Reason,
    ReasonCode,
    Snapshot,
    Tracking,
    VmdkAddress,
)

KINDS: Mapping[str, type[Location]] = {
    "lun": LunAddress,
    "file": FileAddress,
    "device": DeviceAddress,
    "nbd": NbdAddress,
    "vmdk": VmdkAddress,
}


def encoded(snapshot: Snapshot | None) -> dict[str, Any] | None:
    """What ``json.dumps`` takes."""
    if snapshot is None:
        return None
    raw = asdict(snapshot)
    raw["created_at"] = snapshot.created_at.isoformat()
    for disk, frozen in zip(raw["disks"], snapshot.disks, strict=True):
        for layer, original in zip(disk["layers"], frozen.layers, strict=True):
            layer["kind"] = next(kind for kind, known in KINDS.items() if isinstance(original.location, known))
    return raw


def decoded(raw: Mapping[str, Any] | None) -> Snapshot | None:
    """Raises ``ValueError``, ``TypeError`` or ``KeyError`` for what ``encoded`` did not make."""
    if raw is None:
        return None
    return Snapshot(
        **{
            **raw,
            "created_at": datetime.fromisoformat(raw["created_at"]),
            "consistency": Consistency(raw["consistency"]),
            "reasons": tuple(Reason(ReasonCode(r["code"]), r["detail"]) for r in raw["reasons"]),
            "disks": tuple(_disk(disk) for disk in raw["disks"]),
        }
    )


def _disk(raw: Mapping[str, Any]) -> FrozenDisk:
    layers = tuple(Layer(_location(x["kind"], x["location"]), Format(x["format"])) for x in raw["layers"])
    return FrozenDisk(**{**raw, "layers": layers, "tracking": Tracking(raw["tracking"])})


def _location(kind: str, raw: Mapping[str, Any]) -> Location:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    return KINDS[kind](**values)
