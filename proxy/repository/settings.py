"""The ``config`` object: what a repository is. Written once, when it is made; JSON with a digest of itself."""

import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

import blake3

from proxy.errors import FormatError
from proxy.repository import format as layout

NAME = "config"
KIND = "lanfree-repository"
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """``chunk_size`` and ``pack_size`` in bytes; ``level`` of zstd; ``id`` 16 bytes; ``key`` the 32 secret bytes from
    which chunk ids and digests are keyed, so that ids of one repository say nothing about content or other repositories.
    """

    id: bytes
    key: bytes = field(repr=False)
    created_at: str
    chunk_size: int = layout.DEFAULT_CHUNK
    pack_size: int = layout.DEFAULT_PACK
    level: int = 1

    def __post_init__(self) -> None:
        size = self.chunk_size
        if not layout.MIN_CHUNK <= size <= layout.MAX_CHUNK or size & (size - 1):
            raise FormatError(NAME, f"chunk size {size} is not a power of two from 4 KiB to 4 MiB")
        if not layout.MIN_PACK <= self.pack_size <= layout.MAX_PACK or self.pack_size < size:
            raise FormatError(NAME, f"pack size {self.pack_size} is not from 64 KiB to 512 MiB and above a chunk")
        if len(self.id) != layout.NAME_BYTES or len(self.key) != KEY_BYTES:
            raise FormatError(NAME, "id or key has a wrong length")
        if not 1 <= self.level <= 19:
            raise FormatError(NAME, f"zstd level {self.level} is not from 1 to 19")


def fresh(created_at: str, chunk_size: int, pack_size: int, level: int) -> Settings:
    """Settings of a new repository: random id, random key."""
    return Settings(
        secrets.token_bytes(layout.NAME_BYTES),
        secrets.token_bytes(KEY_BYTES),
        created_at,
        chunk_size,
        pack_size,
        level,
    )


def encode(settings: Settings) -> bytes:
    """The object's bytes: readable JSON whose ``digest`` is BLAKE3 over the same JSON without it."""
    plain = {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(settings).items()}
    document = {"format": KIND, "version": layout.VERSION, "codec": "zstd", "sealing": "none", **plain}
    return _text({**document, "digest": _digest(document)})


def decode(data: bytes) -> Settings:
    """Raises ``FormatError`` for what is not a repository's configuration, is damaged, or comes from the future."""
    document = _document(data)
    version = document.get("version")
    if not isinstance(version, int) or version < 1:
        raise FormatError(NAME, f"version {version!r}")
    if version > layout.VERSION:
        raise FormatError(
            NAME, f"the repository has format version {version}; this software knows up to {layout.VERSION}: update it"
        )
    if document.pop("digest", None) != _digest(document):
        raise FormatError(NAME, "its digest does not fit: the object was damaged or changed by hand")
    if document.get("sealing") != "none" or document.get("codec") != "zstd":
        raise FormatError(NAME, f"unknown sealing {document.get('sealing')!r} or codec {document.get('codec')!r}")
    try:
        return Settings(
            bytes.fromhex(document["id"]),
            bytes.fromhex(document["key"]),
            str(document["created_at"]),
            int(document["chunk_size"]),
            int(document["pack_size"]),
            int(document["level"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(NAME, f"field missing or malformed: {error}") from None


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise FormatError(NAME, f"is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != KIND:
        raise FormatError(NAME, "is not a Lanfree repository's configuration")
    return document


def _digest(document: dict[str, Any]) -> str:
    return blake3.blake3(_text(document)).hexdigest()


def _text(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
