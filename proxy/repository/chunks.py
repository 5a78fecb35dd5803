"""What happens to one chunk: is it zero, what is its id, how is it stored, is it what it should be.

Hashing, compression and encryption release the GIL, so that several threads get several CPUs. Objects of this module may
be used from any thread.
"""

import threading

import zstandard
from blake3 import blake3

from proxy.errors import FormatError
from proxy.repository import format as layout
from proxy.repository.format import CLEAR, CODEC_RAW, CODEC_ZSTD, ID_BYTES
from proxy.repository.sealing import Keys
from proxy.repository.settings import Settings

# A compressed chunk must save a sixteenth, or decompressing it at every restore costs more than the space is worth.
WORTH = 15 / 16


class Chunker:
    """The repository's way with chunks: size, zero test, id, codec, seal."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self.size = settings.chunk_size
        self.keys = keys
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

    def encode(self, chunk: bytes, data: memoryview) -> tuple[int, bytes | memoryview]:
        """Codec byte and the bytes to store for the chunk of this id: compressed where that gains enough, then sealed."""
        stored: bytes | memoryview = self._compressor().compress(data)
        codec = CODEC_ZSTD
        if len(stored) > len(data) * WORTH:
            codec, stored = CODEC_RAW, data
        generation = self.keys.newest
        if generation != CLEAR:
            stored = self.keys.seal_chunk(chunk, stored)
        return layout.codec_byte(generation, codec), stored

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
        """Unseal, ``decompress``, and compare with the chunk's id. ``codec``: the codec byte. Raises ``FormatError``."""
        generation, codec = layout.split_codec(codec)
        if (generation == CLEAR) is not (self.keys.newest == CLEAR):
            raise FormatError("chunk", "is in the clear in a sealed repository, or the other way round")
        if generation != CLEAR:
            stored = self.keys.unseal_chunk(chunk, generation, stored)
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
