"""What a policy means before it is stored: machines, coming runs, retention, the coming hours with it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from time import perf_counter

from api.auth.roles import Caller
from api.refusals import FieldRefused
from api.schemas.common import Reason
from api.schemas.jobs import ChosenMachine, Fire, JobPreview, PlanPreview, PreviewRequest
from appliance.jobs import describing, editing, window
from appliance.jobs.advice import Effect, effect
from appliance.jobs.planner import Plan
from appliance.night import Known, Preview, preview_of
from appliance.selecting import Chosen, Facts, Selected, check, facts_of
from appliance.web import job_words, plan_words
from appliance.web.reaching import silences
from appliance.web.retention_preview import retention_preview
from appliance.web.sights import Sights
from appliance.wiring import Services
from catalog.jobs.policy import Policy, Selection
from catalog.jobs.values import Job
from proxy.errors import ConfigurationError, LanfreeError

FIRES = 7
"""Coming runs that are shown: a week of nights."""

NAMED = 10
"""Machines without a place in the plan that are named: a wizard shows that there are some, the plan page has all."""

PREVIEWED = "(preview)"
"""Name of a job that has none yet."""


def checked(policy: Policy) -> Policy:
    """Raises ``FieldRefused`` for what only shows at 3 am otherwise: a rule that is none, a schedule that never fires."""
    for key in ("include", "exclude", "exclude_disks"):
        for number, text in enumerate(getattr(policy.select, key)):
            with _field(f"#/policy/select/{key}/{number}"):
                check(Selection(**{key: (text,)}))
    with _field("#/policy/schedule/cron"):
        return editing.checked(policy)


@contextmanager
def _field(pointer: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise FieldRefused(pointer, error.message, hint=error.hint) from None


class Previews:
    """Answers within half a second for a thousand machines once the sites were looked at: what they showed is kept for a while
    (``appliance.web.sights``), and so is what databases and repository know."""

    def __init__(self, services: Services, sights: Sights) -> None:
        self._services = services
        self._sights = sights
        self._before: tuple[Known, str, float, Effect] | None = None

    def of(self, caller: Caller, request: PreviewRequest, stored: Job | None = None) -> JobPreview:
        """``stored``: the job whose policy it is, if it is one's."""
        policy, now, watch = checked(request.policy), self._services.clock.now(), _Watch()
        looked = self._sights.anew() if request.look_again else self._sights.sight()
        watch.note("look")
        selected = _seen_by(caller, looked.found.choose(policy.select))
        facts = facts_of(self._services)
        machines = [_chosen(one, facts) for one in selected.machines[: request.limit]]
        excluded = [_chosen(one, facts) for one in selected.excluded[: request.limit]]
        watch.note("select")
        fires = _fires(policy, now)
        watch.note("fires")
        retention = retention_preview(policy, self._services.settings.retention, now)
        watch.note("retention")
        plan, refused = self._plan(caller, request, policy, stored) if request.plan else (None, "")
        watch.note("plan")
        return JobPreview(
            policy=policy,
            chosen=len(selected.machines),
            bytes=sum(_size(one) for one in selected.machines),
            machines=machines,
            excluded_count=len(selected.excluded),
            excluded=excluded,
            idle=list(selected.idle) if caller.sees_all else [],  # a rule that is not idle means somebody's machine
            silent=silences(caller, selected.silent),
            fires=fires,
            window="; ".join(describing.window_of(policy, now)),
            remarks=job_words.remarks(self._services.settings, policy, now),
            retention=retention,
            plan=plan,
            plan_refused=refused,
            seen_at=looked.at,
            live=looked.live,
            took=watch.took,
        )

    def _plan(
        self, caller: Caller, request: PreviewRequest, policy: Policy, stored: Job | None
    ) -> tuple[PlanPreview | None, str]:
        """And why there is none: a preview of machines is worth having without it. Sums over all machines would tell who
        reaches some whether there are others that a rule of theirs names."""
        if not caller.sees_all:
            return None, "the coming hours with it are shown to who reaches all machines"
        now = self._services.clock.now()
        try:
            known = self._sights.known().found
        except LanfreeError as error:
            return None, error.message
        name = request.name or PREVIEWED
        others = [job for job in known.jobs if name not in (job.name, job.id)]
        this = replace(stored, policy=policy, enabled=True) if stored else _job(name, policy, now)
        made = preview_of(known, request.hours, now, [*others, this])
        before = self._without(known, name, request.hours, others)
        return _plan_preview(request.hours, name, made, before), ""

    def _without(self, known: Known, name: str, hours: float, others: Sequence[Job]) -> Effect:
        """The same for each key that is pressed in one wizard, until what is known is asked for anew."""
        last = self._before
        if last is not None and last[0] is known and last[1:3] == (name, hours):
            return last[3]
        found = effect(preview_of(known, hours, self._services.clock.now(), others).plan)
        self._before = (known, name, hours, found)
        return found


def _job(name: str, policy: Policy, now: datetime) -> Job:
    return Job("preview", name, policy, 0, enabled=True, created_at=now, updated_at=now, seen=now)


def _plan_preview(hours: float, name: str, made: Preview, before: Effect) -> PlanPreview:
    own = Plan(
        tuple(e for e in made.plan.entries if e.item.job == name),
        tuple(u for u in made.plan.unfit if u.item.job == name),
    )
    return PlanPreview(
        hours=hours,
        runs=[plan_words.coming(run) for run in made.runs if run.job == name],
        begin=own.entries[0].begin if own.entries else None,
        end=own.end,
        planned=len(own.entries),
        unfit=len(own.unfit),
        unfit_named=[f"{u.item.name}: {u.reason.detail}" for u in own.unfit[:NAMED]],
        night=plan_words.effect_of(effect(made.plan)),
        before=plan_words.effect_of(before),
    )


def _seen_by(caller: Caller, selected: Selected) -> Selected:
    if caller.sees_all:
        return selected

    def seen(all_: Sequence[Chosen]) -> tuple[Chosen, ...]:
        return tuple(one for one in all_ if caller.sees(one.machine.id, one.machine.name))

    return replace(selected, machines=seen(selected.machines), excluded=seen(selected.excluded))


def _chosen(one: Chosen, facts: Facts) -> ChosenMachine:
    machine = one.machine
    return ChosenMachine(
        id=machine.id,
        name=machine.name,
        host=machine.host,
        state=machine.state.value,
        rule=one.rule,
        exclude_disks=tuple(sorted(one.exclude_disks)),
        size=_size(one) or None,
        places=facts.of(machine).places,
    )


def _size(one: Chosen) -> int:
    """Of the disks that its restore points will hold."""
    disks = one.machine.disks
    return sum(disk.size for disk in disks if disk.excluded is None and disk.key not in one.exclude_disks)


def _fires(policy: Policy, now: datetime) -> list[Fire]:
    found = []
    for fire in describing.coming(policy, now, FIRES):
        why = window.why_closed(policy, fire)
        skipped = why is not None and policy.schedule is not None and policy.schedule.missed == "skip"
        found.append(
            Fire(
                at=fire,
                local=describing.in_zone(fire, policy.zone),
                begins=None if skipped else window.next_open(policy, fire),
                closes=window.closes_at(policy, fire),
                waits=None if why is None else Reason.of(why),
                skipped=skipped,
            )
        )
    return found


class _Watch:
    """Seconds by part, and all together."""

    def __init__(self) -> None:
        self._begin = self._last = perf_counter()
        self.took: dict[str, float] = {}

    def note(self, part: str) -> None:
        """This part has ended."""
        now = perf_counter()
        self.took[part], self._last = round(now - self._last, 4), now
        self.took["all"] = round(now - self._begin, 4)
