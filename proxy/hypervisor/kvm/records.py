"""What a run must know again after the proxy was killed: one JSON file a run, written before and after the snapshot.

The hypervisor is the truth about overlays and bitmaps; a record adds what it cannot tell: how consistent the snapshot
was proven to be, the machine's definition from before (for machines that vanish with their emulator), and what has to
hold for a machine that was off. Records are small, few, and removed when the run is released.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from proxy.durable import replace_durably, sync_directory
from proxy.errors import FormatError, SnapshotFailed
from proxy.model import (
    Consistency,
    DeviceAddress,
    FileAddress,
    Format,
    FrozenDisk,
    Layer,
    Location,
    LunAddress,
    MachineId,
    NbdAddress,
    Reason,
    ReasonCode,
    RunId,
    Snapshot,
    Tracking,
)

_KINDS: dict[str, type[LunAddress | FileAddress | DeviceAddress | NbdAddress]] = {
    "lun": LunAddress,
    "file": FileAddress,
    "device": DeviceAddress,
    "nbd": NbdAddress,
}

# Run ids become file names here and on the hosts.
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """``definition``: the machine's inactive XML without our overlays. ``starts``: see ``Host.starts``, per host name.

    ``snapshot`` is ``None`` from the moment the run announces what it will do until the snapshot is known to be there.
    ``overlays``: the files that it will make, by disk. ``pull``: they are scratch files, old bytes that only its backup job
    needs. ``sealed``: a restore point holds the snapshot, and its end began. ``ending``: overlays whose merge came to the
    step that ends it: if a chain names one of them no more, this is why.
    """

    run: RunId
    machine: MachineId
    host: str
    definition: str
    snapshot: Snapshot | None = None
    starts: Mapping[str, str] = field(default_factory=dict)
    overlays: Mapping[str, str] = field(default_factory=dict)
    sealed: bool = False
    pull: bool = False
    ending: tuple[str, ...] = ()


class Records:
    """The directory of run records, and of machines whose guest may still be frozen by us."""

    def __init__(self, directory: Path) -> None:
        self._runs = directory / "runs"
        self._frozen = directory / "frozen"
        for place in (self._runs, self._frozen):
            place.mkdir(parents=True, exist_ok=True)

    def save(self, record: RunRecord) -> None:
        """Durable when it returns; an older record of the run is replaced."""
        text = json.dumps({**asdict(record), "snapshot": _encoded(record.snapshot)}, indent=1)
        replace_durably(self._path(record.run), text.encode())

    def load(self, run: RunId) -> RunRecord | None:
        """The run's record. Raises ``FormatError`` when it cannot be read."""
        try:
            raw = json.loads(self._path(run).read_text(encoding="utf-8"))
            fields = {"ending": (), **raw}  # a record from before there was one has none
            snapshot, ending = _decoded(raw["snapshot"]), tuple(fields["ending"])
            return RunRecord(**{**fields, "snapshot": snapshot, "ending": ending})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(f"record of run {run}", str(error)) from None

    def forget(self, run: RunId) -> None:
        """Remove the run's record; one that is not there is fine."""
        self._path(run).unlink(missing_ok=True)

    def runs(self) -> list[RunId]:
        """Runs that have a record."""
        return sorted(p.stem for p in self._runs.glob("*.json"))

    def note_freeze(self, machine: MachineId) -> None:
        """From now on the guest may be frozen by us. Durable when it returns."""
        (self._frozen / machine).touch()
        sync_directory(self._frozen)

    def note_thaw(self, machine: MachineId) -> None:
        """The guest was seen thawed."""
        (self._frozen / machine).unlink(missing_ok=True)

    def maybe_frozen(self, machine: MachineId | None = None) -> list[MachineId]:
        """Machines (or the one) that we may have frozen and never saw thawed."""
        names = sorted(p.name for p in self._frozen.iterdir())
        return names if machine is None else [n for n in names if n == machine]

    def _path(self, run: RunId) -> Path:
        return self._runs / f"{checked_run(run)}.json"


def checked_run(run: RunId) -> RunId:
    """Refuse run ids that could leave their directory or break a name of ours."""
    if not _SAFE.fullmatch(run):
        raise SnapshotFailed(run, "a run id has letters, digits, '.', '_' and '-', at most 100")
    return run


def _encoded(snapshot: Snapshot | None) -> dict[str, Any] | None:
    if snapshot is None:
        return None
    raw = asdict(snapshot)
    raw["created_at"] = snapshot.created_at.isoformat()
    for disk, frozen in zip(raw["disks"], snapshot.disks, strict=True):
        for layer, original in zip(disk["layers"], frozen.layers, strict=True):
            layer["kind"] = next(k for k, t in _KINDS.items() if isinstance(original.location, t))
    return raw


def _decoded(raw: dict[str, Any] | None) -> Snapshot | None:
    if raw is None:
        return None
    return Snapshot(
        **{
            **raw,
            "created_at": datetime.fromisoformat(raw["created_at"]),
            "consistency": Consistency(raw["consistency"]),
            "reasons": tuple(Reason(ReasonCode(r["code"]), r["detail"]) for r in raw["reasons"]),
            "disks": tuple(_decoded_disk(d) for d in raw["disks"]),
        }
    )


def _decoded_disk(raw: dict[str, Any]) -> FrozenDisk:
    layers = tuple(Layer(_decoded_location(x["kind"], x["location"]), Format(x["format"])) for x in raw["layers"])
    return FrozenDisk(**{**raw, "layers": layers, "tracking": Tracking(raw["tracking"])})


def _decoded_location(kind: str, raw: dict[str, Any]) -> Location:
    if "portals" in raw:
        raw = {**raw, "portals": tuple(raw["portals"])}
    return _KINDS[kind](**raw)
