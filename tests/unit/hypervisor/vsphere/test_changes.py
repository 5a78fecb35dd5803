"""Change areas are believed when they cover the disk, and change ids when nothing happened that makes them worthless."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ChangesUnknown
from proxy.extents import Extent, normal
from proxy.hypervisor.vsphere import changes
from proxy.hypervisor.vsphere.changes import Answer, DiskMark, collect, usable
from proxy.hypervisor.vsphere.faults import Refused
from proxy.model import ReasonCode
from proxy.units import GiB, KiB, MiB

EPOCH = "52 de c0 d9 b9 43 9d 10-61 4c 6a 84 01 c1 1f f0"
MARK = DiskMark(f"{EPOCH}/9", 40 * GiB, "6000C293-0000", "vmx-19")

areas = st.lists(
    st.tuples(st.integers(0, 999), st.integers(1, 40)).map(lambda a: Extent(a[0] * KiB, a[1] * KiB)), max_size=30
)


def host(size: int, changed: list[Extent], most: int):
    """A host that tells the truth, in pages of at most ``most`` areas."""

    def ask(offset: int) -> Answer:
        later = [e for e in changed if e.end > offset]
        page = later[:most]
        end = size if len(later) <= most else page[-1].end
        return Answer(offset, end - offset, tuple((max(e.start, offset), e.end - max(e.start, offset)) for e in page))

    return ask


@pytest.mark.slow
@given(areas, st.integers(1, 5))
def test_all_that_changed_is_found_whatever_the_size_of_a_page(found, most):
    size = 1039 * KiB
    changed = normal(Extent(e.start, min(e.length, size - e.start)) for e in found)
    assert collect("d", size, host(size, changed, most)) == changed


numbers = st.tuples(st.integers(-5, 70), st.integers(-5, 70))


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(-5, 70), st.integers(-5, 70), st.lists(numbers, max_size=4)), max_size=6))
def test_whatever_a_host_answers_it_is_covered_and_within_the_disk_or_unknown(answers):
    size, left = 50, [Answer(start, length, tuple(found)) for start, length, found in answers]
    given_up = Answer(0, 0, ())
    try:
        found = collect("d", size, lambda _: left.pop(0) if left else given_up)
    except ChangesUnknown as error:
        assert error.reason == ReasonCode.TRACKING_INCONSISTENT
        return
    assert found == normal(found)
    assert all(0 <= e.start < e.end <= size for e in found)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([Answer(0, 50, ()), Answer(60, 40, ())], "bytes 50 to 60 are left out"),
        ([Answer(0, 50, ()), Answer(50, 0, ())], "asked from 50 on, it covers 50 to 50"),
        ([Answer(0, 50, ()), Answer(0, 50, ())], "asked from 50 on, it covers 0 to 50"),
        ([Answer(0, 100, ((100, 1),))], "not on a disk of 100"),
        ([Answer(0, 100, ((-1, 5),))], "not on a disk of 100"),
    ],
    ids=["gap", "no-progress", "again-the-same", "behind-the-end", "negative"],
)
def test_an_answer_that_cannot_be_makes_the_changes_unknown(answers, words):
    left = list(answers)
    with pytest.raises(ChangesUnknown, match=words) as caught:
        collect("d", 100, lambda _: left.pop(0))
    assert caught.value.reason == ReasonCode.TRACKING_INCONSISTENT


def test_what_reaches_over_the_end_of_the_disk_is_cut_there():
    assert collect("d", 100, lambda _: Answer(0, 128, ((64, 64),))) == [Extent(64, 36)]


def test_a_refusal_makes_the_changes_unknown_with_its_words():
    def ask(_: int) -> Answer:
        raise Refused("QueryChangedDiskAreas", "FileFault; Error caused by file")

    with pytest.raises(ChangesUnknown, match="Error caused by file") as caught:
        collect("d", 100, ask)
    assert caught.value.reason == ReasonCode.TRACKING_LOST


def test_more_areas_than_can_be_kept_become_coarser_and_miss_nothing(monkeypatch):
    monkeypatch.setattr(changes, "MOST_EXTENTS", 100)
    size = 1000 * 256 * KiB
    exact = [Extent(n * 256 * KiB, 64 * KiB) for n in range(1000)]
    found = collect("d", size, host(size, exact, 7))
    assert len(found) <= 100
    assert all(any(f.start <= e.start and e.end <= f.end for f in found) for e in exact)


def test_a_host_that_never_comes_to_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(changes, "MOST_CALLS", 50)
    with pytest.raises(ChangesUnknown, match="no end after 50 calls"):
        collect("d", 1 * MiB, lambda at: Answer(at, 1, ()))


# -- change ids


def test_a_mark_is_written_and_read_back():
    assert DiskMark.parse(str(MARK)) == MARK
    assert MARK.epoch == EPOCH


@pytest.mark.parametrize(
    "text", ["", "nobody-set-this", "a/1", "a/1;size=x;disk=;hardware=", "a;size=1;disk=;hardware="]
)
def test_what_is_no_mark_of_ours_is_unknown(text):
    assert DiskMark.parse(text) is None
    with pytest.raises(ChangesUnknown) as caught:
        usable("d", text, str(MARK))
    assert caught.value.reason == ReasonCode.TRACKING_LOST


def test_a_later_mark_of_the_same_disk_gives_the_older_change_id():
    assert usable("d", str(MARK), str(replace(MARK, change=f"{EPOCH}/12"))) == f"{EPOCH}/9"


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (replace(MARK, change="53 00/1"), ReasonCode.TRACKING_LOST),
        (replace(MARK, size=41 * GiB), ReasonCode.DISK_RESIZED),
        (replace(MARK, disk="6000C293-0001"), ReasonCode.DISK_NEW),
        (replace(MARK, hardware="vmx-20"), ReasonCode.TRACKING_LOST),
        (replace(MARK, change=""), ReasonCode.TRACKING_LOST),
    ],
    ids=["epoch", "grown", "made-anew", "hardware", "no-id"],
)
def test_what_happened_meanwhile_is_told_and_never_passed_over(now, reason):
    with pytest.raises(ChangesUnknown) as caught:
        usable("d", str(MARK), str(now))
    assert caught.value.reason == reason


@pytest.mark.slow
@given(st.text(max_size=80))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    found = DiskMark.parse(text)
    assert found is None or DiskMark.parse(str(found)) == found
