"""Where the bytes of an archive go: a stream as it is, or compressed. It ends properly only when the archive is whole."""

from typing import Protocol

import zstandard

from proxy.closing import Closeable
from proxy.errors import TargetFailed
from proxy.ports import Closing

# Faster than a Gbit/s on one core at about the ratio of gzip -6; higher levels cost twice the time for a few per cent.
LEVEL = 3


class Writable(Protocol):
    """A file or pipe, opened for bytes."""

    def write(self, data: bytes, /) -> int | None: ...
    def flush(self) -> None: ...


class Sink(Closing, Protocol):
    """``write`` raises ``TargetFailed``. ``end``: the archive is whole. ``tear``: it is not, and must not look so; what was
    written until now can be read. Neither closes the stream."""

    def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def tear(self) -> None: ...


class PlainSink(Closeable):
    """The bytes as they are. Nothing of its own marks the end: that is up to the archive's format."""

    def __init__(self, stream: Writable, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except OSError as error:
            raise TargetFailed(self._name, error.strerror or str(error), hint=_HINT) from error

    def end(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise TargetFailed(self._name, error.strerror or str(error), hint=_HINT) from error

    tear = end


class ZstdSink(Closeable):
    """One zstd frame with a checksum (RFC 8878). A torn one has no end: every decompressor says so."""

    def __init__(self, stream: Writable, name: str, *, level: int = LEVEL) -> None:
        self._below = PlainSink(stream, name)
        self._frame = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()

    def write(self, data: bytes) -> None:
        self._below.write(self._frame.compress(data))

    def end(self) -> None:
        self._below.write(self._frame.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH))
        self._below.end()

    def tear(self) -> None:
        self._below.write(self._frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
        self._below.end()


_HINT = "the archive is incomplete; begin again with a place that can take it"
