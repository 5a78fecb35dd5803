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

    def compress(self, data: memoryview) -> tuple[int, bytes | memoryview]:
        """Codec 0 or 1, and what it makes of a chunk: compressed where that gains enough, else the chunk itself."""
        packed = self._compressor().compress(data)
        return (CODEC_RAW, data) if len(packed) > len(data) * WORTH else (CODEC_ZSTD, packed)

    def sealed(self, codec: int, length: int) -> tuple[int, int]:
        """Codec byte and stored length of so many bytes of codec 0 or 1 once they are sealed."""
        generation = self.keys.newest
        return layout.codec_byte(generation, codec), length + (layout.SEAL_BYTES if generation != CLEAR else 0)

    def seal_into(self, chunk: bytes, plain: bytes | memoryview, out: memoryview) -> None:
        """Fill ``out``, which has the stored length, with what is stored for the chunk of this id."""
        if self.keys.newest == CLEAR:
            out[:] = plain
        else:
            self.keys.seal_chunk(chunk, plain, out)

    def decompress_into(self, codec: int, stored: bytes | memoryview, out: memoryview) -> None:
        """Fill ``out`` with what codec 0 or 1 made of a chunk of its length. Memory is bounded by that whatever the stored
        bytes claim. Raises ``FormatError``."""
        if codec == CODEC_RAW:
            if len(stored) != len(out):
                raise FormatError("chunk", f"{len(stored)} bytes stored raw instead of {len(out)}")
            out[:] = stored
            return
        if codec != CODEC_ZSTD:
            raise FormatError("chunk", f"unknown codec {codec}")
        try:
            claimed = zstandard.frame_content_size(stored)
            if claimed != len(out):
                raise FormatError("chunk", f"holds {claimed} bytes instead of {len(out)}")
            got = self._decompressor().stream_reader(stored).readinto(out)
        except zstandard.ZstdError as error:
            raise FormatError("chunk", f"cannot be decompressed: {error}") from None
        if got != len(out):
            raise FormatError("chunk", f"ends after {got} of {len(out)} bytes")

    def restore_into(self, chunk: bytes, codec: int, stored: bytes | memoryview, out: memoryview) -> None:
        """Unseal, decompress, and compare with the chunk's id. ``codec``: the codec byte; ``out`` has the chunk's length, and
        holds nothing that may be used unless this returns. Raises ``FormatError``."""
        generation, codec = layout.split_codec(codec)
        if (generation == CLEAR) is not (self.keys.newest == CLEAR):
            raise FormatError("chunk", "is in the clear in a sealed repository, or the other way round")
        if generation == CLEAR:
            self.decompress_into(codec, stored, out)
        else:
            length = len(stored) - layout.SEAL_BYTES
            raw = codec == CODEC_RAW and length == len(out)
            plain = out if raw else self._room(length)
            self.keys.unseal_chunk(chunk, generation, stored, plain)
            if not raw:
                self.decompress_into(codec, plain, out)
        if self.id(out) != chunk:
            raise FormatError("chunk", "the stored bytes changed: they do not fit their id")

    def restore(self, chunk: bytes, codec: int, stored: bytes | memoryview, raw: int) -> bytearray:
        """``restore_into`` a buffer of its own, of ``raw`` bytes."""
        data = bytearray(raw)
        self.restore_into(chunk, codec, stored, memoryview(data))
        return data

    def _room(self, length: int) -> memoryview:
        """Memory of this thread for a chunk that was unsealed and not decompressed yet."""
        if not 0 < length <= self.size:
            raise FormatError("chunk", f"{length} bytes under its seal, of a chunk of {self.size}")
        try:
            found: memoryview = self._local.room
        except AttributeError:
            found = self._local.room = memoryview(bytearray(self.size))
        return found[:length]

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
