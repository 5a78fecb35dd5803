"""The same request for many: all results in order, or the first error."""

import threading

import pytest

from proxy.repository import parallel
from proxy.repository.parallel import each


@pytest.mark.parametrize("threads", [1, 8])
def test_results_come_in_the_order_of_the_things(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(parallel, "THREADS", threads)
    assert each(lambda n: n * n, range(50)) == [n * n for n in range(50)]
    assert each(str, []) == []
    with pytest.raises(ZeroDivisionError):
        each(lambda n: 1 // n, [1, 0, 2])


def test_several_are_under_way_at_once() -> None:
    barrier = threading.Barrier(parallel.THREADS, timeout=30)
    assert sorted(each(lambda _: barrier.wait(), range(parallel.THREADS))) == list(range(parallel.THREADS))
