"""Stored indexes, opened: mapped where they lie, or unsealed into an unnamed file that is mapped."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.errors import FormatError
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.format import CLEAR, DIGEST_BYTES, HEADER, INDEX_START, NAME_BYTES, SEGMENT_BYTES
from proxy.repository.index import IndexView
from proxy.repository.scratch import Scratch, mapped
from proxy.repository.sealing import BLOCK, SALT_BYTES, sealed_size, unseal_block
from proxy.repository.settings import Settings


def open_index(
    store: ObjectStore, settings: Settings, chunker: Chunker, name: bytes, scratch: Path, *, disk: int
) -> IndexView:
    """Map an index: where it lies if it is in the clear and the store has files, else from an unnamed copy in the clear.
    ``disk``: bytes of the image, which bound what is copied. Raises ``FormatError`` and ``FileNotFoundError``."""
    what = layout.index_name(name)
    size = store.size(what)
    if size > _largest(disk, settings.chunk_size):
        raise FormatError(what, f"has {size} bytes, more than any index of a disk of {disk} bytes")
    head = store.get(what, 0, min(HEADER.size, size))
    generation, own = layout.check_header(what, head, layout.INDEX_MAGIC, settings.chunk_size, settings.id)
    if (generation == CLEAR) is not (chunker.keys.newest == CLEAR) or own != name:
        raise FormatError(what, "is in the clear in a sealed repository, or carries another index's name")
    path = store.local_path(what) if generation == CLEAR else None
    if path is not None:
        with path.open("rb") as file:
            return IndexView(what, mapped(what, file.fileno()), settings, chunker, name)
    with closing(Scratch(scratch)) as copy:
        copy.write(head)
        cipher = None
        if generation != CLEAR:
            try:
                cipher = chunker.keys.object_cipher(name, generation)
            except FormatError as error:
                raise FormatError(what, error.message) from None
        for block in _blocks(store, what, size, cipher):
            copy.write(block)
        return IndexView(what, copy.mapped(what), settings, chunker, name)


# One request; eight blocks of an index that is sealed.
_REQUEST = 8


def _blocks(store: ObjectStore, what: str, size: int, cipher: AESGCM | None) -> Iterator[bytes | memoryview]:
    """An index's body in the clear, piece by piece."""
    step, first, salt = BLOCK, HEADER.size, b""
    if cipher is not None:
        step, first = BLOCK + layout.TAG_BYTES, HEADER.size + SALT_BYTES
        salt = store.get(what, HEADER.size, SALT_BYTES)
    number = 0
    for start in range(first, size, _REQUEST * step):
        part = memoryview(store.get(what, start, min(_REQUEST * step, size - start)))
        for at in range(0, len(part), step):
            block = part[at : at + step]
            yield block if cipher is None else unseal_block(what, cipher, salt, number, block)
            number += 1


def _largest(disk: int, chunk_size: int) -> int:
    """Bytes that an index of a disk may have, sealed."""
    segments, chunks = layout.segment_count(disk, chunk_size), layout.chunk_count(disk, chunk_size)
    return INDEX_START + sealed_size(segments * (4 + SEGMENT_BYTES) + chunks * NAME_BYTES + DIGEST_BYTES)
