"""The layouts are what FORMAT.md says, and what comes from storage is bounded."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import proxy.repository
from proxy.errors import FormatError
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, create
from proxy.repository import format as layout
from proxy.repository.format import HEADER, LAYOUTS, PACK_ENTRY, Entry, Layout
from proxy.repository.leases import Leases
from proxy.repository.records import Health
from tests.unit.repository.collection_helpers import DAY, HandClock, collect_now

DOCUMENT = Path(proxy.repository.__file__).with_name("FORMAT.md")
CHUNK = 4096


def documented(title: str) -> list[tuple[int, int, str]]:
    """Rows of the first offset table below a heading."""
    section = re.split(rf"^#+ {re.escape(title)}$", DOCUMENT.read_text(), flags=re.MULTILINE)[1]
    section = re.split(r"^#", section, maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([^|]+) \|$", section, flags=re.MULTILINE)
    return [(int(offset), int(size), name.strip()) for offset, size, name in rows]


@pytest.mark.parametrize("described", LAYOUTS, ids=lambda described: described.name)
def test_the_document_gives_the_offsets_that_the_code_uses(described: Layout) -> None:
    assert documented(described.name) == described.table()
    last = described.table()[-1]
    assert described.size == last[0] + last[1]


def test_sizes_that_the_document_states_in_words() -> None:
    text = DOCUMENT.read_text()
    assert f"cut to {layout.ID_BYTES} bytes" in text
    assert f"segments** of {layout.SEGMENT_CHUNKS} chunks" in text
    assert f"has {layout.SEGMENT_BYTES} bytes" in text
    assert f"At most {layout.MAX_PACK_ENTRIES}" in text
    assert f"# The repository format, version {layout.VERSION}\n" in text


def test_an_object_from_the_future_is_refused_as_such() -> None:
    data = bytearray(layout.header(layout.PACK_MAGIC, 3, CHUNK, b"r" * 16, b"n" * 16))
    data[8] = layout.VERSION + 1
    with pytest.raises(FormatError, match=r"version 3; this software knows version 2: update it"):
        layout.check_header("pack", data, layout.PACK_MAGIC, CHUNK, b"r" * 16)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 65), (8, 1), (10, 64), (12, 1), (20, 1)],
    ids=["magic", "version", "generation", "chunk", "id"],
)
def test_a_foreign_header_is_refused(place: int, value: int) -> None:
    data = bytearray(layout.header(layout.PACK_MAGIC, 3, CHUNK, b"r" * 16, b"n" * 16))
    assert layout.check_header("pack", data, layout.PACK_MAGIC, CHUNK, b"r" * 16) == (3, b"n" * 16)
    data[place] = value
    with pytest.raises(FormatError):
        layout.check_header("pack", data, layout.PACK_MAGIC, CHUNK, b"r" * 16)


def test_a_header_cut_short_is_refused() -> None:
    with pytest.raises(FormatError, match="too few"):
        layout.check_header("pack", b"LANFPACK", layout.PACK_MAGIC, CHUNK, b"r" * 16)


GOOD = Entry(b"i" * 20, HEADER.size, 10, layout.CODEC_ZSTD, 100)


def test_entries_survive_packing_and_parsing() -> None:
    entries = [GOOD, Entry(b"j" * 20, HEADER.size + 10, 20, layout.CODEC_RAW, 20)]
    parsed = layout.pack_entries("pack", layout.pack_footer(entries), 2, HEADER.size + 30, CHUNK)
    assert parsed == entries


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(Entry(b"i" * 20, HEADER.size + 1, 10, 1, 100), id="gap before it"),
        pytest.param(Entry(b"i" * 20, 0, 10, 1, 100), id="points into the header"),
        pytest.param(Entry(b"i" * 20, HEADER.size, 11, 1, 100), id="reaches behind the chunks"),
        pytest.param(Entry(b"i" * 20, HEADER.size, 10, 1, CHUNK + 1), id="larger than a chunk"),
        pytest.param(Entry(b"i" * 20, HEADER.size, 10, 1, 9), id="stored larger than raw"),
        pytest.param(Entry(b"i" * 20, HEADER.size, 10, 1, 0), id="of no bytes"),
        pytest.param(Entry(b"i" * 20, HEADER.size, 10, 7, 100), id="unknown codec"),
        pytest.param(Entry(b"i" * 20, HEADER.size, 10, 0, 100), id="stored raw in another length"),
        pytest.param(Entry(bytes(20), HEADER.size, 10, 1, 100), id="id of the zero chunk"),
    ],
)
def test_a_hostile_pack_entry_is_refused(hostile: Entry) -> None:
    assert layout.pack_entries("pack", layout.pack_footer([GOOD]), 1, HEADER.size + 10, CHUNK)
    with pytest.raises(FormatError):
        layout.pack_entries("pack", layout.pack_footer([hostile]), 1, HEADER.size + 10, CHUNK)


def test_names_of_packs_are_recognised_and_nothing_else() -> None:
    pack = bytes(range(16))
    assert layout.pack_of(layout.pack_name(pack)) == pack
    assert layout.pack_of("packs/00/readme") is None
    assert layout.pack_of("packs/ff/" + pack.hex()) is None
    assert layout.pack_of("packs/00/0011") is None


def test_the_last_chunk_and_the_last_segment_may_be_short() -> None:
    assert layout.chunk_count(1, CHUNK) == 1
    assert layout.chunk_count(CHUNK + 1, CHUNK) == 2
    assert layout.segment_count(CHUNK * layout.SEGMENT_CHUNKS, CHUNK) == 1
    assert layout.segment_count(CHUNK * layout.SEGMENT_CHUNKS + 1, CHUNK) == 2


def test_an_entry_has_the_size_that_bounds_a_footer() -> None:
    assert PACK_ENTRY.size * layout.MAX_PACK_ENTRIES == 128 * 1024


class Noting(MemoryStore):
    """Notes under which folders objects are replaced."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock=clock)
        self.replaced: set[str] = set()

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        if not new and name in self.objects:
            self.replaced.add(name.partition("/")[0] + "/")
        super().put(name, data, new=new)


def test_the_document_names_all_that_is_ever_replaced(tmp_path: Path, backup: Callable[..., RestorePoint]) -> None:
    clock = HandClock()
    store = Noting(clock)
    with create(store, secret=None, chunk_size=CHUNK, cache=tmp_path, clock=clock) as repository:
        repository.use_leases(Leases(store, repository.sealer, renew=0.01))
        points = [backup(repository, bytes([number]) * CHUNK) for number in range(1, 5)]
        for _ in range(2):
            repository.ledger.hold(points[3].id, "a court asked for it")
            repository.ledger.note_health(points[3], Health.GOOD)
        for point in points[:2]:
            repository.delete(point.id)
        clock.advance(DAY + 1)
        collect_now(repository)  # the second tombstone is signed again, to speak for the first
        with repository.leases.held("backup"):
            deadline = time.monotonic() + 10
            while "leases/" not in store.replaced and time.monotonic() < deadline:
                time.sleep(0.01)
    rows = re.findall(r"^\| (`.*`) \| .*; \*replaced\* \|$", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert {name.split("/")[0].strip("`") + "/" for name in rows} == store.replaced
