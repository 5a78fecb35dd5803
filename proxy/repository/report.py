"""What a repository holds and what of it nobody needs. Reads manifests, indexes and footers, no chunk."""

from contextlib import closing
from dataclasses import dataclass

from proxy.errors import FormatError, IntegrityError
from proxy.repository import format as layout
from proxy.repository.format import Entry
from proxy.repository.packs import read_footer
from proxy.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Statistics:
    """Bytes, unless it says otherwise.

    ``logical``: virtual sizes of all images of all points. ``referenced``: of their chunks that are not zero.
    ``damaged_points``: those whose manifest cannot be read; the other figures know nothing of them.
    ``unique``: of the chunks in packs, before compression; ``compressed``: after it. ``stored``: all objects.
    """

    machines: int
    points: int
    damaged_points: int
    images: int
    chunks: int
    packs: int
    logical: int
    referenced: int
    unique: int
    compressed: int
    stored: int

    @property
    def deduplication(self) -> float:
        """How many times a stored chunk is used on average; 0.0 for an empty repository."""
        return self.referenced / self.unique if self.unique else 0.0

    @property
    def compression(self) -> float:
        """Bytes of chunks over bytes stored for them; 0.0 for an empty repository."""
        return self.unique / self.compressed if self.compressed else 0.0


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """Objects that no restore point refers to: of runs that were given up, of deleted points, or of runs that go on now.

    They are only reported. Removing them here would not be safe: a run that goes on, in any process, may have found its
    chunks in them already. The next backup deduplicates against them.
    """

    packs: tuple[str, ...]
    indexes: tuple[str, ...]
    bytes: int


def statistics(repository: Repository) -> Statistics:
    """Takes time in proportion to points and packs. Unreadable packs and manifests count with their size alone."""
    points, damaged = repository.survey()
    images = [image for point in points for image in point.images]
    referenced = 0
    for image in images:
        with closing(repository.open_view(f"disk {image.key}", image)) as view:
            referenced += min(view.data_chunks * repository.granularity, view.size)
    store = repository.store
    packs = list(store.list("packs/"))
    chunks = unique = compressed = 0
    for name in packs:
        entries = _entries(repository, name)
        chunks += len(entries)
        unique += sum(e.raw for e in entries)
        compressed += sum(e.stored for e in entries)
    return Statistics(
        machines=len({point.machine for point in points}),
        points=len(points),
        damaged_points=len(damaged),
        images=len(images),
        chunks=chunks,
        packs=len(packs),
        logical=sum(image.size for image in images),
        referenced=referenced,
        unique=unique,
        compressed=compressed,
        stored=sum(store.size(name) for name in store.list("")),
    )


def _entries(repository: Repository, name: str) -> list[Entry]:
    pack = layout.pack_of(name)
    try:
        return read_footer(repository.store, repository.settings, repository.chunker, pack) if pack else []
    except (FormatError, IntegrityError):
        return []  # verify tells; here its size counts


def unreferenced(repository: Repository) -> Unreferenced:
    """Packs and indexes are listed before manifests are, so that what is sealed meanwhile is not called unreferenced.
    Raises rather than guess when a manifest or an index cannot be read."""
    store = repository.store
    packs = list(store.list("packs/"))
    indexes = list(store.list("indexes/"))
    used: set[str] = set()
    points, damaged = repository.survey()
    for unknown in damaged:
        raise FormatError(unknown.object, f"{unknown.why}; nobody knows what it refers to")
    for point in points:
        for image in point.images:
            used.add(image.index)
            with closing(repository.open_view(f"disk {image.key}", image)) as view:
                used.update(layout.pack_name(view.pack(number)) for number in range(1, view.pack_count + 1))
    lost_packs = tuple(name for name in packs if name not in used)
    lost_indexes = tuple(name for name in indexes if name not in used)
    size = sum(store.size(name) for name in (*lost_packs, *lost_indexes))
    return Unreferenced(lost_packs, lost_indexes, size)
