"""Marks: exactly what restore points refer to, as a walk through every reference finds it."""

import os
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from proxy.errors import FormatError
from proxy.model import ImageInfo, RestorePoint
from proxy.repository import MemoryStore, Repository
from proxy.repository import format as layout
from proxy.repository.collection import marks
from proxy.repository.collection.marks import Marks, Slots
from proxy.repository.collection.needed import Survey
from proxy.repository.format import SEGMENT_CHUNKS
from proxy.repository.packs import read_footer
from proxy.repository.packset import PackSet
from proxy.repository.resolve import Resolver

CHUNK = 4096
SEGMENT = SEGMENT_CHUNKS * CHUNK

Backup = Callable[..., RestorePoint]
Place = tuple[bytes, int]


def write(repository: Repository, size: int, parts: dict[int, bytes], parent: ImageInfo | None = None) -> ImageInfo:
    with repository.image_writer("vda", size, parent) as writer:
        for offset, data in parts.items():
            writer.write(offset, memoryview(data))
        return writer.seal()


def marked(repository: Repository, found: Marks) -> set[Place]:
    """All entries of all packs that are marked."""
    out: set[Place] = set()
    for number, pack in enumerate(found.packs):
        entries = read_footer(repository.store, repository.settings, repository.chunker, pack)
        live = found.live(np.full(len(entries), number), np.array([e.offset for e in entries], np.uint32))
        out |= {(pack, e.offset) for e, needed in zip(entries, live.tolist(), strict=True) if needed}
    return out


def referred(repository: Repository, images: list[ImageInfo]) -> set[Place]:
    """By the reader's own way, one after the other."""
    out: set[Place] = set()
    for image in images:
        with closing(repository.open_view("a test", image)) as view:
            references = [view.reference(n) for n in range(view.chunks)]
        out |= {(r[1].pack, r[1].offset) for r in references if r is not None}
    return out


def look(repository: Repository, images: list[ImageInfo]) -> Marks:
    """Marks of images, each compared with the one before."""
    repository.lookup.refresh()
    packs = repository.lookup.packs()
    found = Marks(
        packs,
        Resolver(repository.lookup, packs),
        repository.settings,
        repository.lookup.doomed(),
        lambda pack: layout.pack_name(pack) in repository.store.objects,  # type: ignore[attr-defined]  # in memory
    )
    previous: Slots | None = None
    views = []
    for image in images:
        views.append(repository.open_view("a test", image))
        previous = found.add(views[-1], previous)
    if previous is not None:
        previous.release()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 32])
def test_what_chained_incrementals_refer_to_is_marked_and_nothing_else(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(marks, "_STEP", step)
    chooser = random.Random(step)
    size = 5 * SEGMENT + 3 * CHUNK
    images = [write(repository, size, {n * SEGMENT: os.urandom(20 * CHUNK) for n in range(0, 5, 2)})]
    for _ in range(8):
        parts = {
            chooser.randrange(size // CHUNK) * CHUNK: os.urandom(CHUNK) if chooser.random() < 0.8 else bytes(CHUNK)
            for _ in range(12)
        }
        # Whole segments become zero and come back, so that slots differ between an image and the next.
        if chooser.random() < 0.5:
            parts[chooser.randrange(5) * SEGMENT] = bytes(20 * CHUNK)
        parent = images[-1] if chooser.random() < 0.8 else None
        images.append(write(repository, size, parts, parent))
    for chosen in (images, images[::2], images[3:5], [images[7], images[0]], images[-1:], []):
        assert marked(repository, look(repository, chosen)) == referred(repository, chosen)


def test_disks_of_other_sizes_may_come_before(repository: Repository) -> None:
    images = [
        write(repository, segments * SEGMENT, {(segments - 1) * SEGMENT: os.urandom(9 * CHUNK)})
        for segments in (3, 1, 4)
    ]
    assert marked(repository, look(repository, images)) == referred(repository, images)


def test_what_is_in_a_doomed_pack_is_marked_where_a_copy_is(repository: Repository, backup: Backup) -> None:
    data = os.urandom(10 * CHUNK)
    image = write(repository, len(data), {0: data})
    (pack,) = {pack for pack, _ in referred(repository, [image])}
    repository.dooms.add([layout.pack_name(pack)], [], repository.clock.now())
    # Nowhere else yet: it is needed again.
    assert marked(repository, look(repository, [image])) == referred(repository, [image])
    copy = write(repository, len(data), {0: data})
    expected = referred(repository, [copy])
    assert {p for p, _ in expected}.isdisjoint({pack})
    assert marked(repository, look(repository, [image])) == expected
    # The copy is doomed as well: which of them lasts is not known.
    repository.dooms.add([layout.pack_name(p) for p in {p for p, _ in expected}], [], repository.clock.now())
    found = look(repository, [image])
    assert marked(repository, found) == expected | referred(repository, [image])
    assert found.missing == set()


def test_what_is_in_a_pack_that_is_gone_is_marked_where_a_copy_is_or_missing(
    store: MemoryStore, repository: Repository
) -> None:
    data = os.urandom(10 * CHUNK)
    image = write(repository, len(data), {0: data})
    (pack,) = {pack for pack, _ in referred(repository, [image])}
    kept = store.objects.pop(layout.pack_name(pack))
    found = look(repository, [image])
    assert len(found.missing) == 10
    assert not found.marked().any()
    half = write(repository, 5 * CHUNK, {0: data[: 5 * CHUNK]})
    found = look(repository, [image])
    assert found.missing == {repository.chunker.id(data[n * CHUNK : (n + 1) * CHUNK]) for n in range(5, 10)}
    assert marked(repository, found) == referred(repository, [half])
    # A pack that appears after packs were listed is as good as any.
    repository.lookup.refresh()
    packs = repository.lookup.packs()
    late = Marks(packs, Resolver(repository.lookup, packs), repository.settings, frozenset(), lambda _: True)
    store.objects[layout.pack_name(pack)] = kept
    with closing(repository.open_view("a test", image)) as view:
        late.add(view, None).release()
    assert late.missing == set()


def test_what_is_damaged_is_marked_and_its_good_copy_too(repository: Repository) -> None:
    data = os.urandom(4 * CHUNK)
    image = write(repository, len(data), {0: data})
    places = referred(repository, [image])
    bad = sorted(places)[1]
    repository.lookup.damaged.add(*bad, "seen by a test")
    copy = write(repository, len(data), {0: data})
    healed = referred(repository, [copy]) - places
    assert len(healed) == 1
    assert marked(repository, look(repository, [image])) == places | healed
    repository.lookup.damaged.add(bad[0], None, "all of it")
    whole = write(repository, len(data), {0: data})
    assert marked(repository, look(repository, [image])) == places | referred(repository, [whole])


def test_an_index_that_numbers_packs_it_does_not_have_is_refused(repository: Repository) -> None:
    image = write(repository, 4 * CHUNK, {0: os.urandom(4 * CHUNK)})
    found = look(repository, [])
    with closing(repository.open_view("a test", image)) as view:
        hostile = bytearray(view.data)
        at = layout.INDEX_START + 4 + layout.SEGMENT_IDS
        hostile[at : at + 4] = (9).to_bytes(4, "little")
        view.data, kept = memoryview(hostile), view.data
        with pytest.raises(FormatError, match="pack 9 of 1"):
            found.add(view, None)
        view.data = kept


def test_memory_is_64_bytes_a_pack_at_the_default_sizes() -> None:
    class Defaults:
        chunk_size, pack_size = layout.DEFAULT_CHUNK, layout.DEFAULT_PACK

    packs = PackSet.of(os.urandom(16) for _ in range(1000))

    class Nowhere:
        usable = np.ones(1000, dtype=bool)

    found = Marks(packs, Nowhere(), Defaults(), frozenset(), lambda _: False)  # type: ignore[arg-type]  # sizes alone count
    assert found._bits.nbytes <= 65 * 1000
    everywhere = np.arange(1000)
    last = np.full(1000, layout.DEFAULT_PACK + 60, dtype=np.uint32)
    found.mark(everywhere, last)
    assert found.live(everywhere, last).all()
    assert not found.live(everywhere, last - np.uint32(layout.DEFAULT_CHUNK)).any()


def test_a_survey_counts_points_and_indexes_of_all_machines(
    repository: Repository, backup: Backup, tmp_path: Path
) -> None:
    points = [backup(repository, os.urandom(5 * CHUNK), machine=f"m{n % 3}") for n in range(7)]
    told: list[tuple[int, int]] = []
    needed = Survey(repository, 0, lambda machines, seen: told.append((machines, seen))).run()
    assert needed.points == 7
    assert needed.indexes == {point.images[0].index for point in points}
    assert told[-1] == (3, 7)
    assert marked(repository, needed.marks) == referred(repository, [p.images[0] for p in points])
