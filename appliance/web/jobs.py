"""``api.ports.jobs`` over the job store."""

from collections.abc import Mapping
from datetime import datetime

from api.auth.roles import Caller, Permission
from api.paging import Page, decode, encode
from api.refusals import BeyondReach, NotAllowed, Outdated
from api.schemas.jobs import (
    AskedRun,
    ChangedJob,
    ImportRequest,
    ImportResult,
    Job,
    JobChange,
    JobLine,
    JobPreview,
    NewJob,
    PreviewRequest,
    RunBegun,
)
from appliance.auditing import audit
from appliance.jobs import editing, job_text
from appliance.jobs.editing import What
from appliance.jobs.job_text import Written
from appliance.jobs.retention import shortens
from appliance.serving import by_command
from appliance.web import job_words
from appliance.web.job_preview import Previews, checked
from appliance.web.sights import Sights
from appliance.wiring import Services
from catalog.jobs.policy import Policy
from catalog.jobs.store import Unit
from catalog.jobs.values import Job as Stored
from catalog.jobs.values import JobRun
from proxy.errors import ConfigurationError, JobConflict, LanfreeError, NoSuchMachine
from proxy.model import MachineId


class StoredJobs:
    """See ``api.ports.jobs.Jobs``."""

    def __init__(self, services: Services, sights: Sights) -> None:
        self._services = services
        self._sights = sights
        self._previews = Previews(services, sights)

    def page(
        self, *, limit: int, cursor: str | None = None, sort: str = "name", like: str = "", enabled: bool | None = None
    ) -> Page[JobLine]:
        """By name. Jobs that cannot be read are left out: the overview names them."""
        unreadable: dict[str, LanfreeError] = {}
        with self._services.jobs.transaction(write=False) as unit:
            found = list(unit.jobs.list(unreadable))
            last, current = unit.past.last_of_each(), {run.job: run for run in unit.runs.under_way()}
        word = like.casefold()
        found = [
            job
            for job in found
            if enabled in (None, job.enabled) and (word in f"{job.name}\n{job.policy.description}".casefold())
        ]
        backwards = sort == "-name"
        found.sort(key=lambda job: job.name, reverse=backwards)
        if cursor is not None:
            after = str(decode(cursor, 1)[0])
            found = [job for job in found if (job.name < after if backwards else job.name > after)]
        now = self._services.clock.now()
        items = [job_words.line(job, now, last.get(job.id), current.get(job.id)) for job in found[:limit]]
        return Page[JobLine](items=items, next=encode(items[-1].name) if len(found) > limit else None)

    def get(self, name: str) -> Job:
        """With its policy."""
        with self._services.jobs.transaction(write=False) as unit:
            return self._detail(unit, unit.jobs.get(name))

    def add(self, caller: Caller, new: NewJob) -> Job:
        """Recorded before."""
        _changes_policies(caller)
        job_text.check_name(new.name)
        policy, now = checked(new.policy), self._services.clock.now()
        _may_run(caller, None, policy)
        self._record(caller, "add-job", new.name, policy=_short(policy), enabled=new.enabled)
        with self._services.jobs.transaction() as unit:
            made = unit.jobs.add(new.name, policy, now)
            if not new.enabled:
                made = unit.jobs.enable(made.name, False, now)
            return self._detail(unit, made)

    def shortened(self, name: str, policy: Policy, revision: int) -> str:
        """Against what is stored."""
        with self._services.jobs.transaction(write=False) as unit:
            found = _at(unit.jobs.get(name), revision)
        return shortens(found.policy, checked(policy), self._services.settings)

    def shortened_by(self, request: ImportRequest) -> str:
        """Against what is stored."""
        changes = self._compared(editing.wanted(request.text, "the text"), prune=False)
        both = [(each.name, each.before.policy, each.after.policy) for each in changes if each.before and each.after]
        said = ((name, shortens(before, after, self._services.settings)) for name, before, after in both)
        return "; ".join(f"{name}: {words}" for name, words in said if words)

    def change(self, caller: Caller, name: str, changed: ChangedJob, revision: int) -> Job:
        """All of it, or nothing."""
        _changes_policies(caller)
        policy, now = checked(changed.policy), self._services.clock.now()
        if changed.name is not None:
            job_text.check_name(changed.name)
        with self._services.jobs.transaction(write=False) as unit:
            found = _at(unit.jobs.get(name), revision)
        _may_run(caller, found.policy, policy)
        after = Written(policy, found.enabled)
        (difference,) = editing.compare([found], {found.name: after}, prune=False)
        self._record(caller, "change-job", found.name, rename=changed.name, difference=list(difference.difference))
        with self._services.jobs.transaction() as unit:
            found = _at(unit.jobs.get(found.id), revision)
            done = found if found.policy == policy else unit.jobs.change(found.name, policy, revision, now)
            if changed.name not in (None, found.name):
                done = unit.jobs.rename(done.name, str(changed.name), now)
            return self._detail(unit, done)

    def remove(self, caller: Caller, name: str, revision: int | None) -> None:
        """Its restore points stay."""
        _changes_policies(caller)
        with self._services.jobs.transaction(write=False) as unit:
            found = _at(unit.jobs.get(name), revision)
        self._record(caller, "remove-job", found.name, policy=_short(found.policy))
        with self._services.jobs.transaction() as unit:
            _at(unit.jobs.get(found.id), revision)
            unit.jobs.remove(found.id)

    def enable(self, caller: Caller, name: str, *, enabled: bool) -> Job:
        """Said twice, nothing changes."""
        _changes_policies(caller)
        with self._services.jobs.transaction(write=False) as unit:
            found = unit.jobs.get(name)
        self._record(caller, "enable-job" if enabled else "disable-job", found.name)
        with self._services.jobs.transaction() as unit:
            return self._detail(unit, unit.jobs.enable(found.id, enabled, self._services.clock.now()))

    def preview(self, caller: Caller, request: PreviewRequest) -> JobPreview:
        """Of a policy that is not stored."""
        return self._previews.of(caller, request)

    def preview_of(self, caller: Caller, name: str, hours: float, limit: int) -> JobPreview:
        """Of one that is."""
        with self._services.jobs.transaction(write=False) as unit:
            found = unit.jobs.get(name)
        return self._previews.of(
            caller, PreviewRequest(policy=found.policy, name=found.name, hours=hours, limit=limit), found
        )

    def written(self, names: list[str]) -> str:
        """As ``lanfree job export``."""
        with self._services.jobs.transaction(write=False) as unit:
            found = [unit.jobs.get(name) for name in names] if names else unit.jobs.list()
        return job_text.write({each.name: job_text.of(each) for each in found})

    def take(self, caller: Caller, request: ImportRequest) -> ImportResult:
        """As ``lanfree job import``."""
        _changes_policies(caller)
        wanted = editing.wanted(request.text, "the text")
        now, settings = self._services.clock.now(), self._services.settings
        changes = self._compared(wanted, prune=request.prune)
        for change in changes:
            if change.after is not None:
                _may_run(caller, change.before.policy if change.before else None, change.after.policy)
        if not request.dry_run:
            names = {what.value: [c.name for c in changes if c.what is what] for what in What if what is not What.SAME}
            audit(self._services, "import-jobs", who=caller.who, jobs=names)
            with self._services.jobs.transaction() as unit:
                again = editing.compare(unit.jobs.list(), wanted, prune=request.prune)
                if again != changes:
                    raise JobConflict("of the text", "somebody changed jobs at the same time")
                editing.apply(unit, [change for change in changes if change.what is not What.SAME], now)
        return ImportResult(
            dry_run=request.dry_run,
            jobs=[
                JobChange(
                    name=change.name,
                    what=change.what.value,
                    difference=list(change.difference),
                    remarks=job_words.remarks(settings, change.after.policy, now) if change.after else [],
                )
                for change in changes
            ],
        )

    def begin(self, caller: Caller, name: str, asked: AskedRun) -> RunBegun:
        """Whoever reaches only some machines names which of them."""
        with self._services.jobs.transaction(write=False) as unit:
            found = unit.jobs.get(name)
        if not (caller.sees_all or asked.machines):
            raise BeyondReach(caller.name, "run a whole job; name the machines")
        only = [self._machine(caller, each) for each in asked.machines]
        self._record(caller, "run-job", found.name, full=asked.full, machines=only)
        run = by_command.begin_now(self._services, found, full=asked.full, machines=only)
        with self._services.jobs.transaction(write=False) as unit:
            served = bool(unit.proxies.living(self._services.settings.proxy.takeover))
        return RunBegun(id=run.id, job=found.name, served=served)

    def _machine(self, caller: Caller, name: str) -> MachineId:
        """By name or identity, of what the sites showed lately, else of what they show now."""
        for looked in (self._sights.sight, self._sights.anew):
            found = [m for m in looked().found.machines if name in (m.id, m.name) and caller.sees(m.id, m.name)]
            exact = [m for m in found if m.id == name] or found
            if len(exact) > 1:
                raise ConfigurationError(
                    name, f"{len(exact)} machines have this name", hint="give the identity instead"
                )
            if exact:
                return exact[0].id
        raise NoSuchMachine(name)

    def _compared(self, wanted: Mapping[str, Written], *, prune: bool) -> list[editing.Change]:
        with self._services.jobs.transaction(write=False) as unit:
            return editing.compare(unit.jobs.list(), wanted, prune=prune)

    def _detail(self, unit: Unit, job: Stored) -> Job:
        now: datetime = self._services.clock.now()
        runs: list[JobRun] = list(unit.runs.list(job.id, 2))
        current = next((run for run in runs if run.ended_at is None), None)
        last = next((run for run in runs if run.ended_at is not None), None)
        return job_words.detail(job, now, last, current, self._services.settings)

    def _record(self, caller: Caller, action: str, job: str, **detail: object) -> None:
        audit(self._services, action, who=caller.who, job=job, change=detail)


def _changes_policies(caller: Caller) -> None:
    """Raises ``BeyondReach``: rules choose machines that nobody knows yet."""
    if not caller.sees_all:
        raise BeyondReach(caller.name, "change jobs, which choose among all machines")


def _may_run(caller: Caller, before: Policy | None, after: Policy) -> None:
    """Hooks are programs that the proxy runs as itself: who may not configure it adds none. Raises ``NotAllowed``."""
    known = set() if before is None else {*before.before, *before.after}
    if not {*after.before, *after.after} <= known and not caller.may(Permission.CONFIGURE):
        raise NotAllowed(caller.name, Permission.CONFIGURE)


def _at(job: Stored, revision: int | None) -> Stored:
    if revision is not None and job.revision != revision:
        raise Outdated(f"job {job.name}")
    return job


def _short(policy: Policy) -> dict[str, object]:
    """What is not as by default."""
    short: dict[str, object] = policy.model_dump(mode="json", exclude_defaults=True)
    return short
