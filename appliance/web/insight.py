"""``api.ports.insight`` over the appliance's parts: plan, coverage, impact, proxies."""

import threading
import time
from io import StringIO

from api.auth.roles import Caller
from api.schemas.coverage import Coverage, CoveredMachine, Finding, FormerMachine
from api.schemas.impact import BackupImpact, HostNow, Impact, ImpactNow, PlaceImpact, PlaceNow, Times
from api.schemas.plan import Plan, Silence
from api.schemas.proxies import Proxies, Proxy
from appliance import overview
from appliance.jobs import coverage as domain
from appliance.jobs import measured
from appliance.jobs.advice import advise
from appliance.jobs.measured import WHEN, part
from appliance.keeping import coverage_csv
from appliance.keeping.covering import coverage as look
from appliance.night import preview_of
from appliance.telling.text import number
from appliance.web import plan_words
from appliance.web.reaching import silences
from appliance.web.run_words import STAGES
from appliance.web.sights import Looked, Once, Sights
from appliance.wiring import Services
from catalog.jobs.values import Task
from proxy.ports import HostLoad, PlaceLoad

COVERED = 60.0
"""Seconds for which a report of coverage is good enough, unless a fresh one is asked for: it reads a manifest a machine."""

LOOK = 3.0
"""Seconds between two looks at counters that only grow: as ``lanfree impact --now``."""


class NightPlans:
    """See ``api.ports.insight.Plans``."""

    def __init__(self, services: Services, sights: Sights) -> None:
        self._services = services
        self._sights = sights

    def plan(self, caller: Caller, *, hours: float, job: str | None, limit: int, columns: int, advice: bool) -> Plan:
        """Of what the sites showed lately."""
        if job is not None:
            with self._services.jobs.transaction(write=False) as unit:
                job = unit.jobs.get(job).name
        known = self._sights.known()
        seen = preview_of(known.found, hours, self._services.clock.now())
        shown = plan_words.plan_for(caller, seen, job, limit=limit, columns=columns)
        if not advice:
            return shown
        found = advise(seen.night, seen.plan)
        names = {item.name: item.machine for item in seen.night.items}
        mine = [one for one in found if not one.machine or caller.sees(names.get(one.machine, ""), one.machine)]
        return shown.model_copy(update={"advice": [plan_words.proposal(one) for one in mine]})


class CoverageReports:
    """See ``api.ports.insight.Coverages``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._made: dict[float | None, Once[domain.Coverage]] = {}

    def coverage(self, caller: Caller, *, objective: float | None, gaps: bool, fresh: bool) -> Coverage:
        """Of the machines within reach."""
        looked = self._looked(objective, fresh=fresh)
        found = looked.found
        mine = [each for each in found.machines if caller.sees(each.machine, each.name)]
        return Coverage(
            at=looked.at,
            covered=all(each.covered for each in mine) and not found.silent and not found.problems,
            total=len(mine),
            gaps=sum(not each.covered for each in mine),
            machines=[_covered(each) for each in mine if not (gaps and each.covered)],
            former=[_former(each) for each in found.former if caller.sees(each.machine, each.name)],
            unseen=[_former(each) for each in found.unseen if caller.sees(each.machine, each.name)],
            silent=silences(caller, found.silent),
            problems=list(found.problems),
        )

    def as_csv(self, caller: Caller, *, objective: float | None, gaps: bool) -> str:
        """As ``lanfree coverage --csv``."""
        found, out = self._looked(objective, fresh=False).found, StringIO()
        mine = [m for m in found.machines if caller.sees(m.machine, m.name) and not (gaps and m.covered)]
        coverage_csv.write(out, mine, [each for each in found.former if caller.sees(each.machine, each.name)])
        return out.getvalue()

    def _looked(self, objective: float | None, *, fresh: bool) -> "Looked[domain.Coverage]":
        with self._lock:
            if len(self._made) > _OBJECTIVES:
                self._made.clear()
            once = self._made.setdefault(
                objective, Once(lambda: look(self._services, objective), self._services.clock.now)
            )
        return once.get(0.0 if fresh else COVERED)


_OBJECTIVES = 8
"""Reports for objectives that were asked for that are kept: a page asks for one or two."""


class Impacts:
    """See ``api.ports.insight.Impacts``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def backups(self, caller: Caller, *, machine: str, run: str, last: int) -> Impact:
        """Newest first."""
        with self._services.jobs.transaction(write=False) as unit:
            found = measured.newest(unit, machine, run, last, caller.sees)
        return Impact(items=[_impact(task) for task in found])

    def now(self) -> ImpactNow:
        """Two looks where one does not tell."""
        meters = self._services.hypervisor.meters()
        load = meters.read()
        if not load.places:
            time.sleep(LOOK)
            load = meters.read()
        latency = self._services.settings.latency
        return ImpactNow(
            at=load.at,
            seconds=load.seconds,
            hosts=[_host(*each) for each in sorted(load.hosts.items())],
            places=[_place(place, seen, latency.of(place)) for place, seen in sorted(load.places.items())],
            silent=[Silence(where=where, why=why) for where, why in sorted(load.silent.items())],
        )


class ProxyList:
    """See ``api.ports.insight.ProxyList``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def proxies(self) -> Proxies:
        """By the database's clock."""
        settings = self._services.settings
        glance, takeover = overview.read(settings).glance, settings.proxy.takeover
        items = [
            Proxy(
                name=proxy.name,
                machine=proxy.machine,
                alive=overview.alive(proxy, takeover),
                silent_for=proxy.silent_for,
                started_at=proxy.started_at,
                up_seconds=max(0.0, (glance.at - proxy.started_at).total_seconds()),
                version=proxy.version,
                slots=proxy.slots,
                tasks=sum(one.proxy == proxy.name for one in glance.doing),
                paths=list(proxy.paths),
                closed=sorted(proxy.closed),
            )
            for proxy in glance.proxies
        ]
        return Proxies(at=glance.at, serves=any(each.alive for each in items), items=items)


def _covered(machine: domain.Covered) -> CoveredMachine:
    return CoveredMachine(
        machine=machine.machine,
        name=machine.name,
        host=machine.host,
        covered=machine.covered,
        jobs=list(machine.jobs),
        objective=machine.objective,
        point=machine.point,
        created_at=machine.created_at,
        age=machine.age,
        consistency=machine.consistency.value if machine.consistency else None,
        copies=list(machine.copies),
        findings=[
            Finding(kind=each.kind.value, text=each.text, counts=each.counts, accepted=each.accepted)
            for each in machine.findings
        ],
    )


def _former(one: domain.Former) -> FormerMachine:
    return FormerMachine(
        machine=one.machine, name=one.name, host=one.host, newest=one.newest, created_at=one.created_at
    )


def _impact(task: Task) -> BackupImpact:
    measures, stages, seen = task.measures, part(task.measures, "stages"), part(task.measures, "impact")
    bottleneck, places = stages.get("bottleneck"), part(seen, "places")
    return BackupImpact(
        task=task.id,
        job_run=task.job_run or None,
        machine=task.machine,
        name=task.machine_name,
        host=task.host,
        ended_at=task.ended_at,
        bytes_read=_whole(measures, "bytes_read"),
        bytes_stored=_whole(measures, "bytes_stored"),
        over_host=_whole(measures, "over_host"),
        frozen_seconds=number(measures, "frozen_seconds"),
        copying=number(stages, "seconds"),
        bottleneck=bottleneck if isinstance(bottleneck, str) and bottleneck else None,
        stages={name: value for name in STAGES if (value := number(stages, name)) is not None},
        cpu=_times(seen, "cpu"),
        received=_times(seen, "received"),
        sent=_times(seen, "sent"),
        places=[
            PlaceImpact(
                place=place,
                read_latency=_times(part(places, place), "read_latency"),
                write_latency=_times(part(places, place), "write_latency"),
            )
            for place in sorted(places)
        ],
    )


def _times(facts: object, name: str) -> Times:
    return Times(**{when: number(part(facts, name), when) for when in WHEN})


def _whole(facts: object, name: str) -> int | None:
    found = number(facts, name) if isinstance(facts, dict) else None
    return None if found is None else int(found)


def _host(name: str, seen: HostLoad) -> HostNow:
    return HostNow(host=name, cpu=seen.cpu, received=seen.received, sent=seen.sent, network=seen.network)


def _place(name: str, seen: PlaceLoad, limits: tuple[float, float] | None) -> PlaceNow:
    hold, slow = limits or (None, None)
    return PlaceNow(
        place=name,
        reads=seen.reads,
        writes=seen.writes,
        read_latency=seen.read_latency,
        write_latency=seen.write_latency,
        hold=hold,
        slow=slow,
    )
