import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.unit.catalog.jobs.conftest import Site


def test_a_proxy_lives_by_the_databases_clock(site: Site) -> None:
    first = site.proxy("p1", "iqn.a", slots=4)
    with site.store.transaction() as unit:
        (living,) = unit.proxies.living(30)
        assert living == replace(first, seen_at=living.seen_at)
        assert abs(living.seen_at.timestamp() - time.time()) < 5, "not what the proxy said of itself"
        assert not unit.proxies.living(-1)
        assert unit.proxies.beat(replace(first, slots=1, paths=frozenset({"iqn.b"})))
        (again,) = unit.proxies.list()
        assert (again.slots, again.paths, again.started_at) == (1, frozenset({"iqn.b"}), first.started_at)
        assert again.seen_at >= living.seen_at


def test_one_alone_declares_a_proxy_gone_and_it_learns_that_itself(site: Site) -> None:
    first, second = site.proxy("p1"), site.proxy("p2")
    with site.store.transaction() as unit:
        assert unit.proxies.gone("p1")
        assert not unit.proxies.gone("p1"), "only one takes its runs over"
        assert not unit.proxies.gone("unknown")
        assert not unit.proxies.beat(first), "it may not go on"
        assert unit.proxies.beat(second)
        assert [proxy.name for proxy in unit.proxies.living()] == ["p2"]


def test_those_that_are_long_gone_are_forgotten_and_the_living_are_not(site: Site) -> None:
    gone, _ = site.proxy("p1"), site.proxy("p2")
    with site.store.transaction() as unit:
        unit.proxies.gone("p1")
        unit.proxies.forget(datetime.now(UTC) - timedelta(hours=1))
        assert not unit.proxies.beat(gone), "not long enough yet"
        unit.proxies.forget(datetime.now(UTC) + timedelta(hours=1))
        assert unit.proxies.beat(gone), "nobody knows the name any more"
        assert [proxy.name for proxy in unit.proxies.list()] == ["p1", "p2"]
