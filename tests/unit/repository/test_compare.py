"""Where two images of one disk differ."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.extents import Extent
from proxy.model import RestorePoint
from proxy.repository import Repository
from proxy.repository.compare import differing

Backup = Callable[..., RestorePoint]


def between(repository: Repository, backup: Backup, one: bytes, other: bytes) -> list[Extent]:
    readers = [repository.open_image(backup(repository, data), "vda") for data in (one, other)]
    with readers[0], readers[1]:
        return differing(*readers)


def expected(one: bytes, other: bytes, chunk: int) -> set[int]:
    """Numbers of chunks that are not the same, or are in the second alone."""
    count = -(-len(other) // chunk)
    return {n for n in range(count) if one[n * chunk : (n + 1) * chunk] != other[n * chunk : (n + 1) * chunk]}


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    one=st.lists(st.integers(0, 2), min_size=1, max_size=9), other=st.lists(st.integers(0, 2), min_size=1, max_size=9)
)
def test_chunks_that_differ_are_told_and_no_others(
    one: list[int], other: list[int], repository: Repository, backup: Backup
) -> None:
    chunk = repository.granularity
    images = [b"".join(bytes([n]) * chunk for n in numbers) for numbers in (one, other)]
    found = between(repository, backup, *images)
    told = {n for e in found for n in range(e.start // chunk, -(-e.end // chunk))}
    assert told == expected(*images, chunk)


def test_a_disk_that_grew_differs_where_it_grew(repository: Repository, backup: Backup) -> None:
    chunk = repository.granularity
    found = between(repository, backup, bytes([1]) * (chunk + 10), bytes([1]) * (chunk + 10) + bytes(3 * chunk))
    assert found == [Extent(chunk, 3 * chunk + 10)]
    assert between(repository, backup, bytes([1]) * 3 * chunk, bytes([1]) * 2 * chunk) == []
