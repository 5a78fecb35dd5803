"""A planning pass over 10,000 machines: plan, staggering, advice, and all of ``lanfree plan`` but the asking of hosts.

    python tests/bench/jobs/bench_plan.py [--machines 10000]

Machines of lognormal length on hosts and datastores by chance. Goal: a pass under two seconds.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from appliance.jobs.advice import Night, advise, effect
from appliance.jobs.estimating import Basis, Estimate, Estimates
from appliance.jobs.planner import Item
from appliance.jobs.staggering import Candidate, due_tonight
from appliance.jobs.window import Span
from appliance.planning import Knowledge, works_of
from appliance.selecting import Chosen, Facts
from catalog.jobs.limits import Limits
from catalog.jobs.policy import Cadence, Policy
from catalog.jobs.values import TaskKind
from catalog.restore_points import Recency
from proxy.model import Disk, FileAddress, Format, PowerState, VirtualMachine
from proxy.units import GiB

GOAL = 2.0
TEN = datetime(2026, 11, 23, 22, tzinfo=UTC)

# hosts, limit of a host, of a datastore, slots of all proxies
SITES = {
    "many hosts, few slots": (200, 2, 4, 64),
    "hosts are the limit": (200, 1, 2, 400),
    "not all have room": (50, 2, 2, 16),
    "everything is scarce": (500, 1, 1, 300),
}


def timed(what: str, work: Callable[[], object], goal: float | None = None) -> None:
    begin = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - begin
    beside = "" if goal is None else f"   goal {goal:.0f} s: {'kept' if seconds < goal else 'MISSED'}"
    print(f"{what:60} {seconds:7.3f} s   {found}{beside}")


def night(count: int, hosts: int, host: int, place: int, slots: int) -> Night:
    chance = random.Random(1)
    spans = (Span(TEN, TEN + timedelta(hours=8)),)
    items = []
    for n in range(count):
        name, full = f"h{chance.randrange(hosts)}", n % 30 == 0
        keys = [f"machine:{n}", f"host:{name}", f"place:p{chance.randrange(hosts // 2)}", "repository:r"]
        keys += [f"full:host:{name}"] if full else []
        length = Estimate(chance.lognormvariate(4.5, 1.0), Basis.MEASURED, "")
        job = f"job{n % 5}"
        items.append(
            Item(f"{job}/{n}", str(n), f"m{n}", job, name, (*keys, f"job:{job}"), length, spans, full=full, run=job)
        )
    return Night(tuple(items), Limits({"host": host, "place": place, "full": 1}), TEN, slots)


def machines(count: int, hosts: int) -> Sequence[Chosen]:
    chance = random.Random(2)
    found = []
    for n in range(count):
        disk = Disk("vda", chance.randrange(10, 500) * GiB, Format.RAW, FileAddress(f"/ds{n % 100}/m{n}.img"))
        found.append(Chosen(VirtualMachine(f"{n:08}", f"m{n}", f"h{n % hosts}", PowerState.RUNNING, (disk,)), ""))
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=10_000)
    count = parser.parse_args().machines
    for name, numbers in SITES.items():
        site = night(count, *numbers)

        def planned(site: Night = site) -> str:
            found = effect(site.plan())
            return f"{found.unfit} without a place, done {found.end:%H:%M}"

        timed(f"plan of {count} machines: {name}", planned, GOAL)
    chosen = machines(count, 200)
    durations = {(one.machine.id, TaskKind.BACKUP, False): (60.0,) * 7 for one in chosen}
    estimates = Estimates(durations, [one.machine for one in chosen])
    points = {
        one.machine.id: Recency(TEN - timedelta(days=1), TEN - timedelta(days=40), TEN - timedelta(days=20))
        for one in chosen
    }
    knowledge = Knowledge("r", Limits({"host": 2}), estimates, points)
    policy = Policy(active_full=Cadence(days=30))
    spans = (Span(TEN, TEN + timedelta(hours=8)),)
    timed(
        "from chosen machines to items: keys, estimates, fulls that are due",
        lambda: len(works_of(policy, chosen, Facts([]), knowledge, TEN, run="r", spans=spans)),
    )
    candidates = [
        Candidate(one.machine.id, one.machine.host, TEN - timedelta(days=n % 30 + 1), 60.0)
        for n, one in enumerate(chosen)
    ]
    timed("who is due for a full", lambda: len(due_tonight(candidates, 30, TEN)))
    crowded = night(count, *SITES["not all have room"])
    timed("advice where not all have room", lambda: [proposal.what for proposal in advise(crowded)])


if __name__ == "__main__":
    main()
