"""What happens to one chunk: is it zero, what is its id, how is it compressed, is it what it should be.

Hashing and compression release the GIL, so that several threads get several CPUs. Objects of this module may be used
from any thread.
"""

import threading

import zstandard
from blake3 import blake3

from proxy.errors import FormatError
from proxy.repository.format import CODEC_RAW, CODEC_ZSTD, ID_BYTES
from proxy.repository.settings import Settings

CHUNK_CONTEXT = "lanfree repository 2026 chunk id"
IMAGE_CONTEXT = "lanfree repository 2026 image digest"
OBJECT_CONTEXT = "lanfree repository 2026 object digest"
MACHINE_CONTEXT = "lanfree repository 2026 machine name"

# A compressed chunk must save a sixteenth, or decompressing it at every restore costs more than the space is worth.
WORTH = 15 / 16


class Keys:
    """Keys for each use, derived from the repository's one secret, so that no digest of one kind serves as another."""

    __slots__ = ("chunk", "image", "machine", "object")

    def __init__(self, secret: bytes) -> None:
        self.chunk = blake3(secret, derive_key_context=CHUNK_CONTEXT).digest()
        self.image = blake3(secret, derive_key_context=IMAGE_CONTEXT).digest()
        self.object = blake3(secret, derive_key_context=OBJECT_CONTEXT).digest()
        self.machine = blake3(secret, derive_key_context=MACHINE_CONTEXT).digest()


class Chunker:
    """The repository's way with chunks: size, zero test, id, codec."""

    def __init__(self, settings: Settings) -> None:
        self.size = settings.chunk_size
        self.keys = Keys(settings.key)
        self._level = settings.level
        self._zeroes = bytes(settings.chunk_size)
        self._local = threading.local()
        self._key = self.keys.chunk

    def is_zero(self, chunk: memoryview) -> bool:
        """Whether all bytes are zero: one memory comparison that ends at the first other byte."""
        return self._zeroes.startswith(chunk)

    def id(self, chunk: bytes | memoryview) -> bytes:
        """Keyed BLAKE3 of the chunk's own bytes, cut to ``ID_BYTES``."""
        return blake3(chunk, key=self._key).digest(ID_BYTES)

    def compress(self, chunk: memoryview) -> tuple[int, bytes | memoryview]:
        """Codec and the bytes to store: the chunk itself where compression gains too little."""
        packed: bytes = self._compressor().compress(chunk)
        if len(packed) > len(chunk) * WORTH:
            return CODEC_RAW, chunk
        return CODEC_ZSTD, packed

    def decompress(self, codec: int, stored: bytes | memoryview, raw: int) -> bytes | memoryview:
        """Exactly ``raw`` bytes. Memory is bounded by ``raw`` whatever the stored bytes claim. Raises ``FormatError``."""
        if codec == CODEC_RAW:
            if len(stored) != raw:
                raise FormatError("chunk", f"{len(stored)} bytes stored raw instead of {raw}")
            return stored
        if codec != CODEC_ZSTD:
            raise FormatError("chunk", f"unknown codec {codec}")
        try:
            claimed = zstandard.frame_content_size(stored)
            if claimed != raw:
                raise FormatError("chunk", f"holds {claimed} bytes instead of {raw}")
            data: bytes = self._decompressor().decompress(stored)
        except zstandard.ZstdError as error:
            raise FormatError("chunk", f"cannot be decompressed: {error}") from None
        return data

    def restore(self, chunk: bytes, codec: int, stored: bytes | memoryview, raw: int) -> bytes | memoryview:
        """``decompress``, and compare with the chunk's id. Raises ``FormatError``."""
        data = self.decompress(codec, stored, raw)
        if self.id(data) != chunk:
            raise FormatError("chunk", "the stored bytes changed: they do not fit their id")
        return data

    def _compressor(self) -> zstandard.ZstdCompressor:
        # One a thread: the objects keep working memory and may not be used by two threads at once.
        try:
            found: zstandard.ZstdCompressor = self._local.compressor
        except AttributeError:
            found = self._local.compressor = zstandard.ZstdCompressor(level=self._level)
        return found

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        try:
            found: zstandard.ZstdDecompressor = self._local.decompressor
        except AttributeError:
            found = self._local.decompressor = zstandard.ZstdDecompressor()
        return found
