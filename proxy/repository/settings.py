"""The ``config`` object: what a repository is, readable without its key. Written once; JSON with a digest of itself.

Whoever can write to the storage can replace it; so every key slot keeps its digest under seal (``keys.py``), and a
repository in the clear is refused by whoever has a key for it.
"""

import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

import blake3

from proxy.errors import FormatError
from proxy.repository import format as layout
from proxy.repository.sealing import KEY_BYTES

NAME = "config"
KIND = "lanfree-repository"
SEALED, CLEAR = "aes-256-gcm", "none"
_PUBLIC_BYTES = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """``chunk_size`` and ``pack_size`` in bytes; ``level`` of zstd; ``id`` 16 bytes; ``public_key`` (Ed25519) checks the
    repository's signatures. ``key``: only in a repository in the clear, where everybody may know it: it keys ids, so that
    those of one repository say nothing about others."""

    id: bytes
    created_at: str
    public_key: bytes
    key: bytes | None = field(default=None, repr=False)
    chunk_size: int = layout.DEFAULT_CHUNK
    pack_size: int = layout.DEFAULT_PACK
    level: int = 1

    @property
    def sealed(self) -> bool:
        """Whether everything but sizes is encrypted."""
        return self.key is None

    def __post_init__(self) -> None:
        size = self.chunk_size
        if not layout.MIN_CHUNK <= size <= layout.MAX_CHUNK or size & (size - 1):
            raise FormatError(NAME, f"chunk size {size} is not a power of two from 4 KiB to 4 MiB")
        if not layout.MIN_PACK <= self.pack_size <= layout.MAX_PACK or self.pack_size < size:
            raise FormatError(NAME, f"pack size {self.pack_size} is not from 64 KiB to 512 MiB and above a chunk")
        key = self.key if self.key is not None else bytes(KEY_BYTES)
        if (len(self.id), len(self.public_key), len(key)) != (layout.NAME_BYTES, _PUBLIC_BYTES, KEY_BYTES):
            raise FormatError(NAME, "id or key has a wrong length")
        if not 1 <= self.level <= 19:
            raise FormatError(NAME, f"zstd level {self.level} is not from 1 to 19")


def new_id() -> bytes:
    """Of a new repository."""
    return secrets.token_bytes(layout.NAME_BYTES)


def encode(settings: Settings) -> bytes:
    """The object's bytes: readable JSON whose ``digest`` is BLAKE3 over the same JSON without it."""
    plain = {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(settings).items() if v is not None}
    sealing = SEALED if settings.sealed else CLEAR
    document = {"format": KIND, "version": layout.VERSION, "codec": "zstd", "sealing": sealing, **plain}
    return text({**document, "digest": _digest(document)})


def decode(data: bytes) -> Settings:
    """Raises ``FormatError`` for what is not a repository's configuration, is damaged, or of another version."""
    document = _document(data)
    layout.check_version(NAME, document.get("version"))
    if document.pop("digest", None) != _digest(document):
        raise FormatError(NAME, "its digest does not fit: the object was damaged or changed by hand")
    sealing = document.get("sealing")
    if sealing not in (SEALED, CLEAR) or document.get("codec") != "zstd":
        raise FormatError(NAME, f"unknown sealing {sealing!r} or codec {document.get('codec')!r}")
    try:
        return Settings(
            id=bytes.fromhex(document["id"]),
            created_at=str(document["created_at"]),
            public_key=bytes.fromhex(document["public_key"]),
            key=bytes.fromhex(document["key"]) if sealing == CLEAR else None,
            chunk_size=int(document["chunk_size"]),
            pack_size=int(document["pack_size"]),
            level=int(document["level"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(NAME, f"field missing or malformed: {error}") from None


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(NAME, f"is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != KIND:
        raise FormatError(NAME, "is not a Lanfree repository's configuration")
    return document


def _digest(document: dict[str, Any]) -> str:
    return blake3.blake3(text(document)).hexdigest()


def text(document: dict[str, Any]) -> bytes:
    """JSON as ``config`` and key slots have it: keys sorted, indented by 1, a line feed at the end."""
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
