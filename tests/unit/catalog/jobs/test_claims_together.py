"""Claims of many at once, and against a model that looks at every task."""

import random
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta

import pytest

from catalog.jobs.limits import Limits
from catalog.jobs.values import ProxyFacts, Task, TaskState
from tests.unit.catalog.jobs.conftest import START, Site

pytestmark = pytest.mark.slow

LIMITS = Limits({"host": 2, "place": 3, "repository": 9, "full": 1}, {"host:h0": 1, "place:d1": 1})
TASKS = 500
THREADS = 8


def tasks(site: Site, rng: random.Random, count: int) -> list[Task]:
    """Tasks of two job runs, over few hosts and datastores, some machines in both."""
    runs = [site.run(site.job("low", parallel=11)), site.run(site.job("high", priority=1))]
    made = []
    for number in range(count):
        host = f"h{rng.randrange(6)}"
        keys = {f"host:{host}", "repository:r", *(f"place:d{rng.randrange(5)}" for _ in range(rng.randrange(1, 3)))}
        full = rng.random() < 0.2
        paths = frozenset(f"iqn.{name}" for name in "abc" if rng.random() < 0.3)
        made.append(
            site.task(
                runs[number % 2],
                number,
                *keys,
                *([f"full:{host}"] if full else []),
                machine=f"m{number % (count - count // 10)}",
                full=full,
                paths=paths,
                order=START + timedelta(minutes=rng.randrange(60)),
                not_before=START + timedelta(minutes=rng.choice((-1, 0, 1))) if rng.random() < 0.2 else None,
                deadline=START + timedelta(minutes=rng.choice((0, 9))) if rng.random() < 0.1 else None,
            )
        )
    site.add(*made)
    return made


def expected(
    waiting: Sequence[Task],
    running: Sequence[Task],
    proxy: ProxyFacts,
    reached: frozenset[str],
    closed: Collection[str],
) -> str | None:
    """The task that has to be claimed at ``START``, found in the plainest way. ``waiting``: in order."""
    held = Counter(key for task in running for key in task.keys)
    if sum(task.proxy == proxy.name for task in running) >= proxy.slots:
        return None
    for task in waiting:
        limits = {key: LIMITS.of(key) for key in task.keys}
        if (
            all(limit is None or held[key] < limit for key, limit in limits.items())
            and not set(task.keys) & set(closed)
            and (task.not_before is None or task.not_before <= START)
            and (task.deadline is None or task.deadline > START)
            and (task.paths & proxy.paths or not task.paths & reached)
            and (not task.job_run.startswith("low") or sum(t.job_run == task.job_run for t in running) < 11)
        ):
            return task.id
    return None


@pytest.mark.parametrize("seed", range(2))
def test_each_claim_is_the_one_of_a_model_that_looks_at_every_task(seed: int, site: Site) -> None:
    rng = random.Random(seed)
    tasks(site, rng, 60)
    proxies = [site.proxy("p1", "iqn.a", slots=6), site.proxy("p2", "iqn.b", slots=9), site.proxy("p3", slots=4)]
    reached = frozenset({"iqn.a", "iqn.b"})
    claimed = 0
    for _ in range(200):
        closed = [key for key in ("place:d0", "host:h3", "repository:r") if rng.random() < 0.1]
        proxy = rng.choice(proxies)
        with site.store.transaction() as unit:
            running = unit.tasks.running()
            every = [task for run in unit.runs.under_way() for task in unit.tasks.of_run(run.id, TaskState.WAITING)]
            every.sort(key=lambda task: (not task.job_run.startswith("high"), task.order, task.id))
            wanted = expected(every, running, proxy, reached, closed)
            task = unit.tasks.claim(proxy, START, LIMITS, closed=closed)
            assert (task.id if task else None) == wanted
            claimed += task is not None
            if running and rng.random() < 0.5:
                ended = rng.choice(running)
                assert (
                    unit.tasks.end(ended.id, TaskState.DONE, START)
                    if rng.random() < 0.8
                    else unit.tasks.again(ended.id, None)
                )
    assert claimed > 30


class Watch:
    """What runs as those see it who run it: from after a claim to before its end, so never more than really runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()

    def begin(self, task: Task) -> None:
        with self._lock:
            self.begun[task.id] += 1
            for key in (*task.keys, f"proxy:{task.proxy}", f"run:{task.job_run}"):
                self._held[key] += 1
                self.most[key] = max(self.most[key], self._held[key])

    def end(self, task: Task) -> None:
        with self._lock:
            self._held.subtract((*task.keys, f"proxy:{task.proxy}", f"run:{task.job_run}"))


def test_many_that_claim_at_once_never_exceed_a_limit_and_take_every_task_once(site: Site) -> None:
    rng = random.Random(7)
    made = [task for task in tasks(site, rng, TASKS) if task.deadline is None or task.deadline > START]
    later = START + timedelta(minutes=2)
    proxies = [site.proxy(f"p{n}", *(["iqn.a"] if n % 2 else ["iqn.b", "iqn.c"]), slots=5) for n in range(THREADS // 2)]
    watch, failures = Watch(), []

    def work(proxy: ProxyFacts, dice: random.Random) -> None:
        try:
            mine: list[Task] = []
            while True:
                with site.store.transaction() as unit:
                    task = unit.tasks.claim(proxy, later, LIMITS)
                    done = task is None and not unit.tasks.running()
                if task is not None:
                    watch.begin(task)
                    mine.append(task)
                elif done:
                    return
                while mine and (task is None or dice.random() < 0.4):
                    ended = mine.pop(dice.randrange(len(mine)))
                    watch.end(ended)
                    with site.store.transaction() as unit:
                        assert unit.tasks.end(ended.id, TaskState.DONE, later, proxy=proxy.name)
                    task = ended
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(proxies[n // 2], random.Random(n))) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    late = [task for task in made if task.deadline is not None and task.deadline <= later]
    assert set(watch.begun) == {task.id for task in made} - {task.id for task in late}, (
        "nothing was left, nothing starved"
    )
    assert set(watch.begun.values()) == {1}
    over = {key: most for key, most in watch.most.items() if (limit := LIMITS.of(key)) is not None and most > limit}
    assert not over
    assert max(most for key, most in watch.most.items() if key.startswith("proxy:")) <= 5
    assert watch.most["run:low-0"] <= 11
    assert watch.most["repository:r"] > 4, "they did work at the same time"
