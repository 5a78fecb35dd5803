"""The manifest: one restore point as JSON in a signed box. Putting it is the commit point of a backup.

Each names its predecessor in the machine's chain and the hash of that one's object, so that a restore point that was taken
out, or exchanged by somebody without the key, shows (``audit.py``).
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blake3 import blake3

from proxy.errors import FormatError
from proxy.model import MachineId, RestorePoint, RestorePointId, RunId
from proxy.repository import documents
from proxy.repository.sealing import Keys, Sealer

MAGIC = b"LANFMANI"
PREFIX = "points/"

_INDEX = re.compile(r"indexes/([0-9a-f]{2})/\1[0-9a-f]{30}")


@dataclass(frozen=True, slots=True)
class Link:
    """Where a manifest stands in its machine's chain. ``number`` counts from 1; ``previous`` and ``previous_hash`` (see
    ``object_hash``) are of the newest restore point when this one was sealed, ``None`` for a machine's first."""

    number: int
    previous: RestorePointId | None = None
    previous_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the object holds."""

    point: RestorePoint
    link: Link


# NVRAM is base64 with the URL-safe alphabet.
_TO_URL_SAFE = str.maketrans("+/", "-_")
_FROM_URL_SAFE = str.maketrans("-_", "+/")


def point_id(created_at: datetime, machine: MachineId, run: RunId) -> RestorePointId:
    """Sorts by time, tells nothing of host or machine, and is the same when one run seals twice.

    ``20261122T114546.123456Z-9f86d081`` in UTC; the end tells apart what was made in the same microsecond.
    """
    moment = created_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    maker = blake3(f"{machine}/{run}".encode()).hexdigest(4)
    return f"{moment}-{maker}"


def machine_name(keys: Keys, machine: MachineId) -> str:
    """A machine's folder: a keyed digest, so that names of objects tell nobody which machines there are."""
    return blake3(machine.encode(), key=keys.machine).hexdigest(8)


def machine_folder(keys: Keys, machine: MachineId) -> str:
    """Prefix of a machine's manifests."""
    return f"{PREFIX}{machine_name(keys, machine)}/"


def manifest_name(keys: Keys, machine: MachineId, point: RestorePointId) -> str:
    """Object name of a restore point's manifest."""
    return f"{machine_folder(keys, machine)}{point}"


def object_hash(data: bytes) -> str:
    """BLAKE3 (not keyed) of a whole manifest object: what chains and tombstones keep, and what anybody can compare."""
    return blake3(data).hexdigest()


def encode(manifest: Manifest, sealer: Sealer, name: str) -> bytes:
    """The object's bytes."""
    document = documents.plain(manifest)
    _translate(document, _TO_URL_SAFE)
    return sealer.box(MAGIC, name, documents.encode(document), sign=True)


def decode(name: str, data: bytes, sealer: Sealer) -> Manifest:
    """Raises ``FormatError`` for damage, forgery and another version."""
    what = "a restore point"
    document = documents.loaded(name, sealer.unbox(MAGIC, name, data, signed=True), what)
    _translate(document, _FROM_URL_SAFE)
    found = documents.checked(Manifest, name, document, what)
    _check(name, found.point)
    return found


def _translate(document: Any, alphabet: dict[int, int]) -> None:
    """The alphabet of the one field that has bytes, if it is there: nothing of the document was checked yet."""
    with suppress(KeyError, TypeError, AttributeError):
        configuration = document["point"]["configuration"]
        configuration["nvram"] = configuration["nvram"].translate(alphabet)


def _check(name: str, point: RestorePoint) -> None:
    """What the types cannot say. In a repository in the clear storage can sign, and with a manifest goes what it names."""
    for image in point.images:
        if image.size <= 0 or not _INDEX.fullmatch(image.index):
            raise FormatError(name, f"disk {image.key} has {image.size} bytes and the index {image.index[:80]!r}")
    if len({image.key for image in point.images}) < len(point.images):
        raise FormatError(name, "has one disk twice")
    if point.created_at.tzinfo is None or (point.sealed_at is not None and point.sealed_at.tzinfo is None):
        raise FormatError(name, "has times without a time zone")
