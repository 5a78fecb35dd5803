"""Plans as the API shows them."""

from api.auth.roles import Caller
from api.schemas.common import Reason
from api.schemas.plan import (
    ComingRun,
    HostLoad,
    MachineNamed,
    Plan,
    PlanEffect,
    PlannedBackup,
    PlanProposal,
    UnplannedBackup,
)
from appliance.jobs import planner, timeline
from appliance.jobs.advice import Effect, Proposal, effect, host_peaks
from appliance.jobs.planner import Entry, Item, Unfit
from appliance.night import Coming, Preview
from appliance.web.reaching import silences
from proxy.model import VirtualMachine


def coming(run: Coming) -> ComingRun:
    """A run in these hours."""
    return ComingRun(job=run.job, begin=run.begin, end=run.end, machines=run.machines, under_way=run.under_way or None)


def effect_of(one: Effect) -> PlanEffect:
    """What a plan comes to."""
    return PlanEffect(unfit=one.unfit, end=one.end, waited=one.waited, peak=one.peak, host=one.host)


def planned(entry: Entry) -> PlannedBackup:
    """What has a place."""
    item = entry.item
    return PlannedBackup(
        machine=item.machine,
        name=item.name,
        job=item.job,
        host=item.host,
        begin=entry.begin,
        end=entry.end,
        full=item.full,
        keys=list(item.keys),
        expected_seconds=item.estimate.seconds,
        basis=item.estimate.basis.value,
        based_on=item.estimate.detail,
        reasons=Reason.all_of(item.why),
        waited_for=entry.waited_for,
        waited_seconds=entry.waited,
    )


def unplanned(one: Unfit) -> UnplannedBackup:
    """What has none."""
    item = one.item
    return UnplannedBackup(
        machine=item.machine,
        name=item.name,
        job=item.job,
        host=item.host,
        expected_seconds=item.estimate.seconds,
        reason=Reason.of(one.reason),
        waited_for=one.waited_for,
    )


def proposal(one: Proposal) -> PlanProposal:
    """What would help."""
    return PlanProposal(
        change=one.change.value,
        what=one.what,
        value=one.value,
        job=one.job,
        machine=one.machine,
        key=one.key,
        after=effect_of(one.after),
    )


def plan_for(caller: Caller, seen: Preview, job: str | None, *, limit: int, columns: int) -> Plan:
    """The part of it that the caller reaches, and of this job alone if there is one. Sums are over all: a night is as full as
    it is, whoever looks."""

    def shown(item: Item) -> bool:
        return job in (None, item.job) and caller.sees(item.machine, item.name)

    entries = [entry for entry in seen.plan.entries if shown(entry.item)]
    unfit = [one for one in seen.plan.unfit if shown(one.item)]
    part = planner.Plan(tuple(entries), tuple(unfit))
    end, peaks = timeline.end_of(part, seen.now), host_peaks(part)
    step = (end - seen.now) / columns
    hosts = [
        HostLoad(
            host=host, at_once=peaks[host], busy=[round(n, 3) for n in timeline.busy(own, seen.now, step, columns)]
        )
        for host, own in timeline.by_host(part).items()
    ]

    def machines(all_: tuple[VirtualMachine, ...]) -> list[MachineNamed]:
        return [MachineNamed(id=m.id, name=m.name, host=m.host) for m in all_ if caller.sees(m.id, m.name)]

    silent = silences(caller, seen.silent)
    hidden = set(seen.silent) - {each.where for each in silent}
    return Plan(
        at=seen.now,
        until=seen.until,
        runs=[coming(run) for run in seen.runs if job in (None, run.job)],
        entries=[planned(entry) for entry in entries[:limit]],
        entries_left_out=max(0, len(entries) - limit),
        unfit=[unplanned(one) for one in unfit[:limit]],
        unfit_left_out=max(0, len(unfit) - limit),
        effect=effect_of(effect(seen.plan)),
        line_until=end,
        columns=columns,
        hosts=hosts,
        in_no_job=machines(seen.in_no_job),
        unscheduled=machines(seen.unscheduled),
        silent=silent,
        notes=[note for note in seen.notes if not any(where in note for where in hidden)],
    )
