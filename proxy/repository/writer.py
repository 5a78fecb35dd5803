"""One disk on its way into the repository."""

import secrets
import threading
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from proxy.closing import Closeable
from proxy.errors import FormatError
from proxy.model import ImageInfo
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.index import IndexBuilder
from proxy.repository.leases import Lease
from proxy.repository.packs import PackWriter

if TYPE_CHECKING:
    from proxy.repository.lookup import ChunkLookup


class RepositoryImageWriter(Closeable):
    """The ``ImageWriter`` port. Hashing and compression happen in the calling thread, without the GIL."""

    def __init__(
        self,
        key: str,
        builder: IndexBuilder,
        *,
        store: ObjectStore,
        chunker: Chunker,
        lookup: "ChunkLookup",
        packs: PackWriter,
        lease: Lease,
        sealed: Callable[[str, Lease], None],
    ) -> None:
        self.size = builder.size
        self.granularity = chunker.size
        self._key = key
        self._builder = builder
        self._store = store
        self._chunker = chunker
        self._lookup = lookup
        self._packs = packs
        self._lease = lease
        self._sealed = sealed
        self.store_seconds = 0.0
        self._counting = threading.Lock()
        self._new = 0
        self._stored = 0
        self._info: ImageInfo | None = None
        self._closed = False

    def write(self, offset: int, data: memoryview) -> None:
        """Every chunk of ``data`` that is neither zero nor what the index already says is stored, unless the repository
        has it. Raises what lost a pack that this image needs."""
        first = self._first_chunk(offset, len(data))
        self._lease.check()
        if self._packs.failures:
            self._packs.check(self._builder.packs())
        chunker, builder, size = self._chunker, self._builder, self._chunker.size
        waited = self._packs.waited
        for number, start in enumerate(range(0, len(data), size), first):
            chunk = data[start : start + size]
            if chunker.is_zero(chunk):
                builder.zero(number, 1)
                continue
            digest = chunker.id(chunk)
            if builder.id(number) == digest:
                continue
            place = self._packs.pending(digest) or self._lookup.find(digest)
            if place is None:
                place, new = self._packs.store(digest, chunk)
                if new:
                    self._count(len(chunk), layout.split_stored(place.word)[1])
            builder.set(number, digest, place)
        if (seconds := self._packs.waited - waited) > 0:
            with self._counting:
                self.store_seconds += seconds

    def zero(self, offset: int, length: int) -> None:
        first = self._first_chunk(offset, length)
        self._builder.zero(first, layout.chunk_count(length, self._chunker.size))

    def seal(self) -> ImageInfo:
        if self._info is not None:
            return self._info
        self._open()
        waited = self._packs.waited
        self._packs.flush(self._builder.packs())
        self.store_seconds += self._packs.waited - waited
        name = secrets.token_bytes(layout.NAME_BYTES)
        data, digest = self._builder.finish(name, self._chunker)
        with data:
            begin = perf_counter()
            self._store.put(layout.index_name(name), data)
            self.store_seconds += perf_counter() - begin
            stored = self._stored + len(data)
        self._info = ImageInfo(
            key=self._key,
            size=self.size,
            index=layout.index_name(name),
            digest=digest,
            transport="",
            source="",
            bytes_read=0,
            bytes_new=self._new,
            bytes_stored=stored,
        )
        self._sealed(self._info.index, self._lease)
        self.close()
        return self._info

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._builder.close()
            if self._info is None:
                self._lease.drop()

    def _first_chunk(self, offset: int, length: int) -> int:
        self._open()
        end = offset + length
        if offset < 0 or offset % self.granularity or end > self.size or (end % self.granularity and end != self.size):
            raise FormatError(
                f"image of disk {self._key}",
                f"{length} bytes at {offset} are not whole chunks of {self.granularity} within {self.size}",
            )
        return offset // self.granularity

    def _count(self, new: int, stored: int) -> None:
        with self._counting:
            self._new += new
            self._stored += stored

    def _open(self) -> None:
        if self._closed:
            raise FormatError(f"image of disk {self._key}", "is closed")
