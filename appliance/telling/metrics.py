"""Prometheus metrics: the only module that imports its client. Names and meanings are a contract with dashboards and alarms;
OPERATING.md lists them.

Everything is read when it is asked for. Only what was true at one moment is told, as gauges: counters would begin anew with
each proxy and lie across several of them.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.telling.facts import BYTES, Facts, Gatherer, JobFacts
from appliance.telling.text import NAME, one_line, seconds_between
from catalog.jobs.values import JobRunState, TaskState

if TYPE_CHECKING:
    from appliance.wiring import Services

_LOG = logging.getLogger(__name__)

_Values = dict[tuple[str, ...], float]
"""Values by labels."""

_PARTS = ("jobs", "repository")


class Metrics(Collector):
    """``gather``: reads the facts; asked again only after ``min_age`` seconds. ``machines``: single machines are told of only
    when there are not more."""

    def __init__(self, gather: Callable[[], Facts], *, machines: int, min_age: float) -> None:
        self._gather = gather
        self._machines = machines
        self._min_age = min_age
        self._lock = threading.Lock()  # two scrapers at once cost one reading
        self._known: tuple[float, list[Metric]] | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read a database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All families."""
        with self._lock:
            now = time.monotonic()
            if self._known is None or now - self._known[0] >= self._min_age:
                facts = self._gather()
                self._known = (time.monotonic(), list(families(facts, self._machines, time.monotonic() - now)))
            return self._known[1]


def families(facts: Facts, machines: int, seconds: float) -> Iterator[Metric]:
    """What the facts say. ``seconds``: that reading them took."""
    yield _gauge("lanfree_info", "What runs", {(_version(),): 1}, "version")
    yield GaugeMetricFamily("lanfree_scrape_duration_seconds", "Time that reading all of this took", value=seconds)
    missing: _Values = {(part,): float(part in facts.missing) for part in _PARTS}
    yield _gauge("lanfree_scrape_missing", "1: could not be read, its metrics are absent", missing, "part")
    yield from _spaces(facts)
    closed: _Values = {(key,): 1.0 for key in facts.closed}
    yield _gauge(
        "lanfree_key_closed", "Host, datastore or repository under which a proxy begins nothing now", closed, "key"
    )
    if "jobs" in facts.missing:
        return
    states: _Values = {(state.value,): float(facts.tasks[state]) for state in (TaskState.WAITING, TaskState.RUNNING)}
    yield _gauge("lanfree_tasks", "Tasks of the job runs that are under way", states, "state")
    yield from _proxies(facts)
    yield from _jobs(facts.jobs)
    yield from _each_machine(facts, machines)


def _spaces(facts: Facts) -> Iterator[Metric]:
    sizes: _Values = {(space.place,): float(space.size) for space in facts.spaces}
    free: _Values = {(space.place,): float(space.free) for space in facts.spaces}
    yield _gauge("lanfree_repository_size_bytes", "Size of the repository's file system", sizes, "repository")
    yield _gauge("lanfree_repository_free_bytes", "Free space for the repository", free, "repository")


def _proxies(facts: Facts) -> Iterator[Metric]:
    alive = sum(living for _, living in facts.proxies)
    yield GaugeMetricFamily("lanfree_proxies_alive", "Proxies with a sign of life within a minute", value=alive)
    # By machine, not by process: the name of a process is new at each start.
    newest: _Values = {}
    slots: _Values = {}
    for proxy, living in facts.proxies:
        key = (one_line(proxy.machine, NAME),)
        newest[key] = max(newest.get(key, 0.0), proxy.seen_at.timestamp())
        slots[key] = slots.get(key, 0.0) + (proxy.slots if living else 0)
    yield _gauge("lanfree_proxy_seen_timestamp_seconds", "Newest sign of life of a proxy", newest, "proxy")
    yield _gauge("lanfree_proxy_slots", "Tasks that living proxies take at once", slots, "proxy")


def _jobs(jobs: Collection[JobFacts]) -> Iterator[Metric]:
    def told(of: Callable[[JobFacts], float | None]) -> _Values:
        return {(job.job.name,): value for job in jobs if (value := of(job)) is not None}

    yield _gauge("lanfree_job_enabled", "1: runs by its schedule", told(lambda j: j.job.enabled), "job")
    yield _gauge("lanfree_job_running", "1: a run is under way", told(lambda j: j.running), "job")
    yield _gauge(
        "lanfree_job_objective_seconds",
        "Age that a machine's newest restore point may have",
        told(lambda j: j.job.policy.objective * 3600),
        "job",
    )
    yield _gauge(
        "lanfree_job_machines_overdue",
        "Machines of its last run without a success within the objective",
        told(lambda j: len(j.overdue) if j.last else None),
        "job",
    )
    yield from _last_runs([job for job in jobs if job.last is not None])


def _last_runs(jobs: Collection[JobFacts]) -> Iterator[Metric]:
    begun: _Values = {}
    ended: _Values = {}
    took: _Values = {}
    states: _Values = {}
    machines: _Values = {}
    moved: _Values = {}
    for facts in jobs:
        run, sums, name = facts.last, facts.sums, facts.job.name
        if run is None or run.ended_at is None or sums is None:
            continue
        begun[name,] = run.started_at.timestamp()
        ended[name,] = run.ended_at.timestamp()
        took[name,] = seconds_between(run.started_at, run.ended_at) or 0.0
        for state in JobRunState:
            if state is not JobRunState.RUNNING:
                states[name, state.value] = float(run.state is state)
        for task in (TaskState.DONE, TaskState.FAILED, TaskState.STOPPED):
            machines[name, task.value] = sums.states.get(task, 0)
        for kind in BYTES:
            moved[name, kind] = sums.bytes.get(kind, 0)
    yield _gauge("lanfree_job_last_run_start_timestamp_seconds", "Begin of the newest ended run", begun, "job")
    yield _gauge("lanfree_job_last_run_end_timestamp_seconds", "Its end", ended, "job")
    yield _gauge("lanfree_job_last_run_duration_seconds", "From its begin to its end", took, "job")
    yield _gauge("lanfree_job_last_run_state", "1 for the state in which it ended", states, "job", "state")
    yield _gauge("lanfree_job_last_run_machines", "Its machines by how they ended", machines, "job", "state")
    yield _gauge(
        "lanfree_job_last_run_bytes", "Bytes read, new, stored, and sent by hosts for it", moved, "job", "kind"
    )


def _each_machine(facts: Facts, most: int) -> Iterator[Metric]:
    count = len(facts.successes)
    yield GaugeMetricFamily("lanfree_machines", "Machines that were ever backed up by a job", value=count)
    oldest = min((moment.timestamp() for _, moment in facts.successes.values()), default=None)
    if oldest is not None:
        yield GaugeMetricFamily(
            "lanfree_machines_oldest_success_timestamp_seconds", "The oldest among their newest successes", value=oldest
        )
    if count <= most:
        each: _Values = {
            (machine, one_line(name, NAME)): moment.timestamp() for machine, (name, moment) in facts.successes.items()
        }
        yield _gauge(
            "lanfree_machine_last_success_timestamp_seconds", "End of its newest good backup", each, "machine", "name"
        )


def _gauge(name: str, words: str, values: _Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(name, words, labels=labels)
    for key, value in values.items():
        family.add_metric([_label(part) for part in key], value)
    return family


def _label(text: str) -> str:
    """Encodable, whatever it holds."""
    return text.encode("utf-8", "replace").decode()


def _version() -> str:
    try:
        return version("lanfree")
    except PackageNotFoundError:
        return "unknown"


def registry_of(
    services: "Services", closed: Callable[[], Collection[str]] = tuple, *more: Collector
) -> CollectorRegistry:
    """All of an appliance's metrics, and whatever else is to be told with them."""
    settings = services.settings
    sections = [("repository", settings.repository), *((copy.name, copy) for copy in settings.copy_to)]
    places = {name: repository.path for name, repository in sections if repository.s3 is None}
    gatherer = Gatherer(lambda: services.jobs, places, services.clock.now, closed)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(gatherer.facts, machines=settings.metrics.machines, min_age=settings.metrics.min_age))
    for collector in more:
        registry.register(collector)
    return registry


def text_of(registry: CollectorRegistry) -> str:
    """As Prometheus reads it (text format 0.0.4)."""
    return generate_latest(registry).decode()


class Latencies(Collector):
    """How long the web process took for requests: by route and outcome, counts in buckets since it began."""

    def __init__(
        self, seen: Callable[[], Mapping[tuple[str, str, str], Sequence[float]]], bounds: Sequence[float]
    ) -> None:
        """``seen``: (method, route, status class) -> counts of each bucket, then of what was longer, then seconds in sum."""
        self._seen = seen
        self._bounds = [f"{bound:g}" for bound in bounds]

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One family."""
        words = "Time until a request of the API was answered"
        family = HistogramMetricFamily("lanfree_api_request_seconds", words, labels=("method", "route", "status"))
        for key, (*counts, seconds) in sorted(self._seen().items()):
            sums = accumulate(counts)
            buckets = [(bound, total) for bound, total in zip([*self._bounds, "+Inf"], sums, strict=True)]
            family.add_metric([_label(part) for part in key], buckets, sum_value=seconds)
        yield family


@contextmanager
def serving(services: "Services", closed: Callable[[], Collection[str]] = tuple) -> Iterator[int | None]:
    """Answer scrapers in the background while the block runs, if ``[metrics]`` says where; gives the port. ``closed``: keys
    under which nothing may begin now. An address that cannot be had is logged: backups are more than their metrics."""
    section = services.settings.metrics
    if section.listen is None:
        yield None
        return
    registry = registry_of(services, closed)
    host, port = section.listen
    try:
        server, thread = start_http_server(port, host or "::", registry)
    except OSError as error:
        _LOG.error(
            "no metrics: cannot listen on %s: %s", section.address, error.strerror, extra={"event": "no-metrics"}
        )
        yield None
        return
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
