"""Chains of images as one disk: who hides whom, what is refused, and that every container is closed."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused
from proxy.extents import Extent, Kind, is_map, normal
from proxy.model import FileAddress, Format, FrozenDisk, Layer, ReasonCode, Tracking
from proxy.ports import BlockSource
from proxy.transport.layers import open_layers
from proxy.transport.memory import MemorySource
from tests.unit.transport.qcow2_builder import CLUSTER, Image, Marks

SIZE = 16 * CLUSTER
Content = bytes | Image


class Place:
    """Containers by number, top first: bytes are raw, an ``Image`` is qcow2."""

    def __init__(self, *contents: Content, size: int = SIZE, tracking: Tracking = Tracking.NONE) -> None:
        self.containers = [
            MemorySource(
                bytes(c.build()) if isinstance(c, Image) else c, identity=f"naa.{i}", can_report_extents=i % 2 == 0
            )
            for i, c in enumerate(contents)
        ]
        layers = [
            Layer(FileAddress(str(i)), Format.QCOW2 if isinstance(c, Image) else Format.RAW)
            for i, c in enumerate(contents)
        ]
        self.disk = FrozenDisk("vda", size, tuple(layers), tracking)
        self.opened: list[MemorySource] = []

    def container(self, layer: Layer) -> BlockSource:
        assert isinstance(layer.location, FileAddress)
        self.opened.append(self.containers[int(layer.location.path)])
        return self.opened[-1]

    def open(self) -> BlockSource:
        return open_layers(self.disk, self.container, "san")


def content(source: BlockSource) -> bytes:
    buffer = bytearray(b"\xee" * source.size)
    source.read_into(0, memoryview(buffer))
    return bytes(buffer)


def test_a_raw_container_is_cut_to_the_disk() -> None:
    with Place(b"a" * SIZE + b"b" * 100).open() as source:
        assert (source.size, source.identity) == (SIZE, "naa.0")
        assert content(source) == b"a" * SIZE
        assert source.extents() == [Extent(0, SIZE)]
        with pytest.raises(ReadFailed):
            source.read_into(SIZE - 1, memoryview(bytearray(2)))


def test_holes_of_a_raw_container_are_told_if_it_can_tell() -> None:
    with Place(b"a" * CLUSTER + bytes(SIZE)).open() as source:
        assert source.extents() == [Extent(0, CLUSTER), Extent(CLUSTER, SIZE - CLUSTER, Kind.ZERO)]


def test_the_drawing() -> None:
    a, b = b"0" * CLUSTER, b"1" * CLUSTER
    top = Image(size=5 * CLUSTER, clusters={0: a, 2: a}, zero=[4])
    middle = Image(size=5 * CLUSTER, clusters={1: b, 2: b, 4: b})
    with Place(top, middle, size=5 * CLUSTER).open() as source:
        assert content(source) == a + b + a + bytes(2 * CLUSTER)
        assert source.extents() == [Extent(0, 3 * CLUSTER), Extent(3 * CLUSTER, 2 * CLUSTER, Kind.ZERO)]
        assert source.identity == "naa.1"


clusters = st.dictionaries(st.integers(0, 15), st.sampled_from([None, b"x", b"y", b"z"]), max_size=12)


@pytest.mark.slow
@given(layers=st.lists(clusters, min_size=1, max_size=3), raw=st.none() | st.integers(0, 17))
@settings(deadline=None)
def test_a_chain_reads_as_its_model(layers: list[dict[int, bytes | None]], raw: int | None) -> None:
    model = bytearray(SIZE)
    contents: list[Content] = []
    if raw is not None:
        model[: raw * CLUSTER] = (b"r" * raw * CLUSTER)[:SIZE]
        contents.insert(0, b"r" * raw * CLUSTER)
    for layer in layers:
        for number, letter in layer.items():
            model[number * CLUSTER : (number + 1) * CLUSTER] = (letter or b"\0") * CLUSTER
        written = {number: letter * CLUSTER for number, letter in layer.items() if letter}
        contents.insert(0, Image(size=SIZE, clusters=written, zero=[n for n, letter in layer.items() if not letter]))
    with Place(*contents).open() as source:
        assert content(source) == model
        extents = source.extents()
        assert is_map(extents, SIZE)
        assert list(extents) == normal(extents)
        assert all(e.kind is Kind.DATA or not any(model[e.start : e.end]) for e in extents)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (Place, "no-layers"),
        (lambda: Place(bytes(SIZE - 1024)), "container-too-small"),
        (lambda: Place(Image(size=SIZE + CLUSTER)), "size-mismatch"),
        (lambda: Place(Image(size=SIZE - CLUSTER)), "size-mismatch"),
        (lambda: Place(Image(size=SIZE), bytes(SIZE), bytes(SIZE)), "raw-above-layers"),
        (lambda: Place(Image(size=SIZE, backing="base")), "backing-missing"),
        (lambda: Place(Image(size=SIZE), Image(backing="base")), "backing-missing"),
        (lambda: Place(Image(size=SIZE), Image(crypt_method=2)), "image-encrypted"),
    ],
)
def test_a_chain_that_is_not_the_disk_is_refused_and_closed(place: Callable[[], Place], reason: str) -> None:
    made = place()
    with pytest.raises(TransportRefused) as refused:
        made.open()
    assert refused.value.reason == reason
    assert refused.value.mode == "san"
    assert all(container.closed for container in made.opened)
    assert len(made.opened) == len(made.containers) or reason == "image-encrypted"


def test_what_was_opened_is_closed_when_a_later_container_cannot_be_opened() -> None:
    made = Place(Image(size=SIZE), bytes(SIZE))

    def container(layer: Layer) -> BlockSource:
        if layer.format is Format.RAW:
            raise TransportRefused("san", "vda", "no-such-lun")
        return made.container(layer)

    with pytest.raises(TransportRefused, match="no-such-lun"):
        open_layers(made.disk, container, "san")
    assert made.containers[0].closed


def test_what_was_opened_is_closed_when_a_read_fails_on_the_way() -> None:
    made = Place(Image(size=SIZE), Image(size=SIZE))
    made.containers[1].faults.fail(2, ReadFailed("naa.1", 0, 1, "path lost"))
    with pytest.raises(ReadFailed, match="path lost"):
        made.open()
    assert [c.closed for c in made.containers] == [True, True]


def test_an_overlay_rests_on_its_layers_whatever_its_header_calls_them() -> None:
    with Place(Image(size=SIZE, backing="elsewhere"), b"r" * SIZE).open() as source:
        assert content(source) == b"r" * SIZE


def test_closing_closes_every_container_and_reads_fail_afterwards() -> None:
    made = Place(Image(size=SIZE), bytes(SIZE))
    source = made.open()
    source.close()
    source.close()
    assert [c.closed for c in made.containers] == [True, True]
    with pytest.raises(ReadFailed, match="closed"):
        source.read_into(0, memoryview(bytearray(1)))


# --- changes ---

A, C = b"a" * CLUSTER, CLUSTER


def changed(*contents: Content, tracking: Tracking = Tracking.IMAGE) -> list[Extent]:
    with Place(*contents, tracking=tracking).open() as source:
        return list(source.changed("mark"))


def marked(*bits: int) -> Image:
    return Image(size=SIZE, bitmaps=[Marks("mark", bits, granularity_bits=12)])


def test_the_bitmap_of_the_only_layer_answers() -> None:
    assert changed(marked(1, 2)) == [Extent(C, 2 * C)]


def test_layers_above_the_bitmap_count_with_their_own_bitmap_or_with_all_they_hold() -> None:
    plain = Image(size=SIZE, clusters={4: A}, zero=[6])
    held = [Extent(4 * C, C), Extent(6 * C, C)]
    assert changed(plain, marked(1)) == [Extent(C, C), *held]
    assert changed(marked(8), marked(1)) == [Extent(C, C), Extent(8 * C, C)]
    assert changed(plain, marked(8), plain, marked(1)) == [Extent(C, C), *held, Extent(8 * C, C)]
    assert changed(marked(8), plain, bytes(SIZE)) == [Extent(8 * C, C)]


def test_a_shorter_layer_above_the_bitmap_changed_all_behind_its_end() -> None:
    short = Image(size=12 * C)
    assert changed(Image(size=SIZE), short, marked(1)) == [Extent(C, C), Extent(12 * C, 4 * C)]


@pytest.mark.parametrize(
    ("contents", "tracking", "reason"),
    [
        ([Image(size=SIZE)], Tracking.IMAGE, ReasonCode.TRACKING_LOST),
        ([Image(size=SIZE), bytes(SIZE)], Tracking.IMAGE, ReasonCode.TRACKING_LOST),
        ([bytes(SIZE)], Tracking.IMAGE, ReasonCode.NO_TRACKING),
        ([bytes(SIZE)], Tracking.LAYER, ReasonCode.NO_TRACKING),
        ([marked(1)], Tracking.NONE, ReasonCode.NO_TRACKING),
        (
            [Image(size=SIZE), Image(size=SIZE, bitmaps=[Marks("mark", flags=1)])],
            Tracking.IMAGE,
            ReasonCode.TRACKING_INCONSISTENT,
        ),
    ],
)
def test_changes_that_nobody_knows_say_why(contents: list[Content], tracking: Tracking, reason: ReasonCode) -> None:
    with pytest.raises(ChangesUnknown) as unknown:
        changed(*contents, tracking=tracking)
    assert unknown.value.reason == reason


def test_tracking_by_layer_tells_what_the_top_layer_holds() -> None:
    top = Image(size=SIZE, clusters={1: A, 2: A}, zero=[3, 9])
    assert changed(top, b"r" * SIZE, tracking=Tracking.LAYER) == [Extent(C, 3 * C), Extent(9 * C, C)]


def test_a_disk_whose_size_the_hypervisor_does_not_tell_is_as_large_as_its_image() -> None:
    disk = FrozenDisk("vda", 0, (Layer(FileAddress("/x"), Format.RAW),))
    with open_layers(disk, lambda _: MemorySource(b"x" * 5000), "san") as source:
        assert source.size == 5000
        data = bytearray(5000)
        source.read_into(0, memoryview(data))
        assert data == b"x" * 5000
