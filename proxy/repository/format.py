"""Binary layouts of the repository, as FORMAT.md gives them (format version 2). No logic but packing and bounds.

All integers are little-endian. Whatever comes from storage is checked here before anybody uses it: a length, count or
offset that does not fit raises ``FormatError``.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.errors import FormatError
from proxy.units import KiB, MiB

VERSION = 2
"""Of every object. A reader refuses any other: version 1 was never released, and knew neither keys nor chains."""

PACK_MAGIC = b"LANFPACK"
INDEX_MAGIC = b"LANFINDX"
PACK_END = b"LANFPEND"

CLEAR = 0
"""Generation of what is stored in the clear."""

MAX_GENERATION = 63
"""Key generations count from 1. Six bits of every reference name the one that sealed the chunk."""

NONCE_BYTES, TAG_BYTES = 12, 16
SEAL_BYTES = NONCE_BYTES + TAG_BYTES
"""AES-256-GCM (NIST SP 800-38D): random nonce in front, tag behind."""

CODEC_RAW, CODEC_ZSTD = 0, 1

# 160 bits: with a secret key nobody can look for collisions at all, with a known key (a repository in the clear) it
# takes 2^80 work; 128 bits would save 4 bytes of 32 a reference and leave 2^64 to somebody who knows the key.
ID_BYTES = 20
DIGEST_BYTES = 32
NAME_BYTES = 16
"""Random name of a pack, an index or a repository; written as 32 hexadecimal digits."""

MIN_CHUNK, MAX_CHUNK = 4 * KiB, 4 * MiB
DEFAULT_CHUNK = 256 * KiB
"""A 5 % scattered change costs 152 MiB stored at 256 KiB against 313 MiB at 1 MiB, and a full backup only 9 % more time;
64 KiB would store 96 MiB but a full takes 31 % longer and every index is four times as large."""

MIN_PACK, MAX_PACK = 64 * KiB, 512 * MiB
DEFAULT_PACK = 16 * MiB
"""One durable write each: smaller costs a sync more often, larger costs memory (two are held: with 32 MiB a backup's peak is
above 120 MiB) and collection effort."""

# Chunks that compress to nothing must not make a footer of unbounded size: 4096 entries are 128 KiB of footer.
MAX_PACK_ENTRIES = 4096

SEGMENT_CHUNKS = 4096
"""References are kept in segments (1 GiB of disk at 256 KiB chunks, 128 KiB of index): a segment of zeroes costs nothing."""

ZERO_ID = bytes(ID_BYTES)
"""Marks a chunk of zeroes in an index; it is never stored."""


class Layout:
    """A fixed structure: field names beside ``struct`` codes, so that a test can compare it with FORMAT.md."""

    __slots__ = ("fields", "name", "size", "struct")

    def __init__(self, name: str, *fields: tuple[str, str]) -> None:
        self.name = name
        self.fields = fields
        self.struct = struct.Struct("<" + "".join(code for _, code in fields))
        self.size = self.struct.size

    def table(self) -> list[tuple[int, int, str]]:
        """Offset, size in bytes and name of every field."""
        rows: list[tuple[int, int, str]] = []
        offset = 0
        for name, code in self.fields:
            size = struct.calcsize("<" + code)
            rows.append((offset, size, name))
            offset += size
        return rows


HEADER = Layout(
    "Object header",
    ("magic", "8s"),
    ("version", "H"),
    ("generation", "H"),
    ("chunk size", "I"),
    ("repository", "16s"),
    ("name", "16s"),
)
PACK_ENTRY = Layout("Pack entry", ("id", "20s"), ("offset", "I"), ("stored", "I"), ("raw length", "I"))
PACK_TRAILER = Layout(
    "Pack trailer",
    ("entries", "I"),
    ("entries offset", "I"),
    ("generation", "I"),
    ("reserved", "I"),
    ("body digest", "32s"),
    ("footer digest", "32s"),
    ("end magic", "8s"),
)
INDEX_FIELDS = Layout(
    "Index fields",
    ("image size", "Q"),
    ("data chunks", "Q"),
    ("segments", "I"),
    ("slots", "I"),
    ("packs", "I"),
    ("reserved", "I"),
)
PLACE = Layout("Place", ("pack", "I"), ("offset", "I"), ("stored", "I"))

LAYOUTS = (HEADER, PACK_ENTRY, PACK_TRAILER, INDEX_FIELDS, PLACE)

SEGMENT_IDS = SEGMENT_CHUNKS * ID_BYTES
SEGMENT_BYTES = SEGMENT_CHUNKS * (ID_BYTES + PLACE.size)
INDEX_START = HEADER.size + INDEX_FIELDS.size
"""Where an index's segment table begins."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One chunk in a pack: ``offset`` and ``stored`` are bytes in the pack object, ``raw`` bytes of the disk; ``codec``:
    the codec byte of ``codec_byte``."""

    id: bytes
    offset: int
    stored: int
    codec: int
    raw: int


def codec_byte(generation: int, codec: int) -> int:
    """How a chunk is stored: sealed by which generation of the key (or ``CLEAR``), compressed or not."""
    return generation << 2 | codec


def split_codec(byte: int) -> tuple[int, int]:
    """Generation and codec."""
    return byte >> 2, byte & 3


def stored_word(codec: int, length: int) -> int:
    """Codec byte on top, stored length below: what indexes and packs keep in 4 bytes."""
    return codec << 24 | length


def split_stored(word: int) -> tuple[int, int]:
    """Codec byte and stored length."""
    return word >> 24, word & 0xFFFFFF


def pack_name(pack: bytes) -> str:
    """Object name of a pack; 256 directories keep each of them small."""
    return f"packs/{pack[:1].hex()}/{pack.hex()}"


def pack_of(name: str) -> bytes | None:
    """The pack that an object name means, or ``None`` for a name that is not a pack's."""
    last = name.rpartition("/")[2]
    try:
        pack = bytes.fromhex(last)
    except ValueError:
        return None
    return pack if len(pack) == NAME_BYTES and pack_name(pack) == name else None


def index_name(index: bytes) -> str:
    """Object name of an image's index."""
    return f"indexes/{index[:1].hex()}/{index.hex()}"


def header(magic: bytes, generation: int, chunk_size: int, repository: bytes, name: bytes) -> bytes:
    """The first bytes of every binary object."""
    return HEADER.struct.pack(magic, VERSION, generation, chunk_size, repository, name)


def check_version(what: str, version: object) -> None:
    """Raises ``FormatError`` for any version but this one."""
    if version == VERSION:
        return
    newer = isinstance(version, int) and version > VERSION
    raise FormatError(
        what,
        f"has format version {version}; this software knows version {VERSION}"
        + (": update it" if newer else ", earlier ones were never released"),
    )


def check_header(
    what: str, data: bytes | memoryview, magic: bytes, chunk_size: int, repository: bytes
) -> tuple[int, bytes]:
    """Generation and the object's own name, after everything else in its header was compared."""
    if len(data) < HEADER.size:
        raise FormatError(what, f"{len(data)} bytes are too few for a header")
    got_magic, version, generation, got_chunk, got_repository, name = HEADER.struct.unpack_from(data)
    if got_magic != magic:
        raise FormatError(what, f"begins with {got_magic!r} instead of {magic!r}")
    check_version(what, version)
    if generation > MAX_GENERATION:
        raise FormatError(what, f"is sealed by key generation {generation}")
    if got_chunk != chunk_size or got_repository != repository:
        raise FormatError(what, "belongs to another repository")
    return generation, bytes(name)


def pack_entries(what: str, data: bytes | memoryview, count: int, end: int, chunk_size: int) -> list[Entry]:
    """Parse a pack's footer. ``end``: where the chunks end. They must lie back to back, from the header to ``end``."""
    entries: list[Entry] = []
    position = HEADER.size
    for chunk, offset, word, raw in PACK_ENTRY.struct.iter_unpack(data[: count * PACK_ENTRY.size]):
        byte, stored = split_stored(word)
        generation, codec = split_codec(byte)
        plain = stored - (SEAL_BYTES if generation else 0)
        if offset != position or not 0 < raw <= chunk_size or not 0 < plain <= raw or chunk == ZERO_ID:
            raise FormatError(
                what, f"footer entry {len(entries)} does not fit: offset {offset}, {stored} of {raw} bytes"
            )
        if codec not in (CODEC_RAW, CODEC_ZSTD) or (codec == CODEC_RAW and plain != raw):
            raise FormatError(what, f"footer entry {len(entries)} has codec {codec}, {stored} of {raw} bytes")
        entries.append(Entry(chunk, offset, stored, byte, raw))
        position += stored
    if position != end:
        raise FormatError(what, f"chunks end at {position} instead of {end}")
    return entries


def pack_footer(entries: Sequence[Entry]) -> bytes:
    """The footer's entries as bytes."""
    return b"".join(PACK_ENTRY.struct.pack(e.id, e.offset, stored_word(e.codec, e.stored), e.raw) for e in entries)


def chunk_count(size: int, chunk_size: int) -> int:
    """Chunks of a disk; the last one may be short."""
    return -(-size // chunk_size)


def segment_count(size: int, chunk_size: int) -> int:
    """Segments of a disk's index."""
    return -(-chunk_count(size, chunk_size) // SEGMENT_CHUNKS)
