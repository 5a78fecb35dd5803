"""The manifest: one restore point as JSON. Putting it is the commit point of a backup.

::

    {"format": "lanfree-restore-point", "version": 1, "point": {…}}\\n
    blake3 <keyed digest of the line above, without its end>\\n
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from blake3 import blake3
from pydantic import ConfigDict, TypeAdapter, ValidationError

from proxy.errors import FormatError
from proxy.model import MachineId, RestorePoint, RestorePointId, RunId
from proxy.repository.chunks import Keys
from proxy.repository.format import VERSION

KIND = "lanfree-restore-point"
PREFIX = "points/"


@dataclass(frozen=True, slots=True)
class _Envelope:
    """Read first: a manifest from the future is told as such, not as malformed."""

    format: str
    version: int


@dataclass(frozen=True, slots=True)
class _Document:
    __pydantic_config__ = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    format: str
    version: int
    point: RestorePoint


_envelopes = TypeAdapter(_Envelope)
_documents = TypeAdapter(_Document)


def point_id(created_at: datetime, machine: MachineId, run: RunId) -> RestorePointId:
    """Sorts by time, tells nothing of host or machine, and is the same when one run seals twice.

    ``20261122T114546.123456Z-9f86d081`` in UTC; the end tells apart what was made in the same microsecond.
    """
    moment = created_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    maker = blake3(f"{machine}/{run}".encode()).hexdigest(4)
    return f"{moment}-{maker}"


def machine_folder(keys: Keys, machine: MachineId) -> str:
    """Prefix of a machine's manifests: a keyed digest, so that names of objects tell nobody which machines there are."""
    return f"{PREFIX}{blake3(machine.encode(), key=keys.machine).hexdigest(8)}/"


def manifest_name(keys: Keys, machine: MachineId, point: RestorePointId) -> str:
    """Object name of a restore point's manifest."""
    return f"{machine_folder(keys, machine)}{point}"


def encode(point: RestorePoint, keys: Keys) -> bytes:
    """The object's bytes."""
    body = _documents.dump_json(_Document(KIND, VERSION, point))
    return body + b"\nblake3 " + blake3(body, key=keys.object).hexdigest().encode() + b"\n"


def decode(what: str, data: bytes, keys: Keys) -> RestorePoint:
    """Raises ``FormatError`` for damage and for a version from the future."""
    body, _, tail = data.partition(b"\n")
    try:
        envelope = _envelopes.validate_json(body)
    except ValidationError as error:
        raise FormatError(what, f"is not a manifest: {_first(error)}") from None
    if envelope.format != KIND or envelope.version > VERSION:
        raise FormatError(
            what,
            f"is {envelope.format} version {envelope.version}; this software knows {KIND} up to {VERSION}: update it",
        )
    if tail != b"blake3 " + blake3(body, key=keys.object).hexdigest().encode() + b"\n":
        raise FormatError(what, "its digest does not fit: it was damaged or changed by hand")
    try:
        return _documents.validate_json(body).point
    except ValidationError as error:
        raise FormatError(what, f"does not hold a restore point: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
