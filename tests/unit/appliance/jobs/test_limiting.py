"""Limits as the configuration file says them."""

from appliance.config_serving import Limits
from appliance.jobs.limiting import limited


def test_nothing_means_no_limit_and_exceptions_come_before_their_kind() -> None:
    made = limited(Limits(per_host=2, per_place=0, keys={"host:big": 8, "host:free": 0, "place:slow": 1}))
    assert made.of("host:kvm1") == 2
    assert made.of("host:big") == 8
    assert (made.of("host:free") or 0) > 1_000_000
    assert made.of("place:any") is None
    assert made.of("place:slow") == 1


def test_the_work_on_a_repository_is_done_by_one_at_a_time() -> None:
    made = limited(Limits())
    assert [made.of(f"{kind}:r") for kind in ("copy", "verify", "prune")] == [1, 1, 1]
