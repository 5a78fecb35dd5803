"""No two calls on one connection at a time, and no connection that is left behind."""

from collections.abc import Iterator
from itertools import count

import pytest

from proxy.errors import HostUnreachable
from proxy.hypervisor.kvm.connection_pool import ConnectionPool


class Line:
    """A connection."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.alive = True
        self.hung_up = False


class Exchange:
    """Makes connections, and can be out of order."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.silent = False
        self.pool: ConnectionPool[Line] = ConnectionPool(self._connect, lambda line: line.alive, self._hang_up)
        self._numbers: Iterator[int] = count(1)

    def _connect(self) -> Line:
        if self.silent:
            raise HostUnreachable("h1", "no route")
        self.lines.append(Line(next(self._numbers)))
        return self.lines[-1]

    def _hang_up(self, line: Line) -> None:
        line.hung_up = True


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def test_calls_one_after_the_other_share_a_connection(exchange: Exchange) -> None:
    for _ in range(3):
        with exchange.pool.lend() as line:
            assert line.number == 1


def test_a_call_that_hangs_has_its_connection_to_itself(exchange: Exchange) -> None:
    with exchange.pool.lend() as hanging:
        for _ in range(2):
            with exchange.pool.lend() as line:
                assert line.number == 2
    assert not hanging.hung_up
    assert [line.number for line in exchange.lines] == [1, 2]


def test_a_connection_that_broke_is_lent_to_nobody(exchange: Exchange) -> None:
    with exchange.pool.lend() as first, exchange.pool.lend() as second:
        pass
    first.alive = False
    with exchange.pool.lend() as line:
        assert line is second
        second.alive = False
    with exchange.pool.lend() as line:
        assert line.number == 3
    assert first.hung_up and second.hung_up and not line.hung_up


def test_a_second_attempt_trusts_no_idle_connection(exchange: Exchange) -> None:
    with exchange.pool.lend():
        pass
    with exchange.pool.lend(fresh=True) as line:
        assert line.number == 2


def test_after_the_end_of_a_pool_its_connections_are_gone_also_those_that_were_lent(exchange: Exchange) -> None:
    with exchange.pool.lend() as lent:
        with exchange.pool.lend() as idle:
            pass
        exchange.pool.close()
        assert idle.hung_up and not lent.hung_up
    assert lent.hung_up
    with exchange.pool.lend() as line:
        assert line.number == 3


def test_a_host_that_cannot_be_reached_is_told_and_asked_again_by_the_next_call(exchange: Exchange) -> None:
    exchange.silent = True
    with pytest.raises(HostUnreachable), exchange.pool.lend():
        pass
    exchange.silent = False
    with exchange.pool.lend() as line:
        assert line.number == 1


def test_a_call_that_fails_gives_its_connection_back(exchange: Exchange) -> None:
    with pytest.raises(ValueError), exchange.pool.lend():
        raise ValueError
    with exchange.pool.lend() as line:
        assert line.number == 1
