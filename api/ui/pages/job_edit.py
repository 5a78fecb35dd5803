"""Make or change a job, and see meanwhile what it would mean."""

from typing import Any

from nicegui import ui

from api.auth.roles import Permission
from api.client_answers import parsed
from api.schemas.jobs import Job, JobPreview
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import job_page, to
from api.ui.pages.job_acts import path_of
from api.ui.pages.job_form import form, policy_of
from api.ui.pages.job_preview import drawn
from api.ui.parts.advice import advice
from api.ui.parts.blocks import bullets, card, note
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.visit import Visit
from api.ui.words import plain
from catalog.jobs.policy import Keep, Policy, Schedule, Selection
from proxy.errors import ConfigurationError, ServerRefused

_HOURS = 48.0
"""How far the plan in the preview looks: two nights."""


def _fresh(zone: str) -> Policy:
    """What a new job begins with: every night, kept for two weeks, eight weeks and a year of months.

    The newest three besides: by days alone, a second run of the same day would let the first one go at once, and with it
    the state before a change.
    """
    schedule = Schedule.model_validate({"at": ["22:00"]})
    keep = Keep(last=3, daily=14, weekly=8, monthly=12)
    return Policy(zone=zone, select=Selection(include=("",)), schedule=schedule, retention=keep)


async def build(visit: Visit, job: str = "") -> None:
    """Draw the form, empty without a job, with its preview beside it."""
    zone = visit.clock.zone.key
    if job:
        answer = await visit.api.call("GET", path_of(job))
        one = parsed(Job, answer)
        policy, etag = one.policy, answer.headers.get("etag")
    else:
        policy, etag = _fresh(zone), None
    crumbs = (("Jobs", to("/jobs")), (job, job_page(job))) if job else (("Jobs", to("/jobs")),)
    Part().show(
        head(
            f"Edit {job}" if job else "New job",
            "The preview on the side shows what it would mean; nothing is stored before you say so.",
            crumbs=crumbs,
        )
    )
    message = Message()
    wizard = _Wizard(visit, job, policy, etag, message)
    with ui.element("div").classes("lf-cols half"):
        Part(wizard.heard).show(
            form(
                job,
                policy,
                do="Save" if job else "Create job",
                leave=job_page(job) if job else to("/jobs"),
                hooks=visit.may(Permission.CONFIGURE),
            )
        )
        wizard.preview = Part(cls="lf-stick", live=True)
    await wizard.look(policy.model_dump(mode="json"), job)


class _Wizard:
    """One form and its preview. ``asked``: how often the preview was: an answer to an older question is thrown away."""

    def __init__(self, visit: Visit, job: str, policy: Policy, etag: str | None, message: Message) -> None:
        self._visit, self._job, self._policy, self._etag, self._message = visit, job, policy, etag, message
        self._asked = 0
        self.preview: Part | None = None

    async def heard(self, act: Act) -> None:
        """A value was changed, or all is to be saved."""
        try:
            policy = policy_of(act, self._policy)
        except ConfigurationError as error:
            self._refuse(error, told=act.act == "save")
            return
        if act.act == "preview":
            await self.look(policy, act.one("name"))
        elif act.act == "save":
            await self._save(act.one("name").strip(), policy)

    def _refuse(self, error: ConfigurationError, *, told: bool) -> None:
        """It is no policy, and the API need not be asked why. ``told``: above the form, too."""
        self._asked += 1
        if told:
            self._message.refuse("The job was not saved", error.message, error.hint)
        if self.preview is not None:
            wrong = note("This is not a policy yet", error.message, error.hint, tone="warn")
            self.preview.show(card("What it would mean", wrong))

    async def look(self, policy: dict[str, Any], name: str) -> None:
        """Ask what it would mean."""
        self._asked += 1
        mine = self._asked
        body = {"policy": policy, "name": name[:64], "hours": _HOURS}
        try:
            shown = drawn(self._visit, await self._visit.api.post(JobPreview, "/jobs/preview", body))
        except ServerRefused as refused:
            shown = _wrong(refused)
        if mine == self._asked and self.preview is not None:
            self.preview.show(card("What it would mean", shown))

    async def _save(self, name: str, policy: dict[str, Any]) -> None:
        api = self._visit.api
        if self._job:
            saving = api.call("PUT", path_of(self._job), {"policy": policy, "name": name}, etag=self._etag)
        else:
            saving = api.call("POST", "/jobs", {"name": name, "policy": policy}, key=api.new_key())
        answer = await self._message.attempt("The job was not saved", saving)
        if answer is None:
            return
        if answer.status_code == 202:
            self._message.done(
                "It waits for a second person", "Shorter retention needs two pairs of eyes; see Approvals."
            )
            return
        ui.navigate.to(job_page(name).removeprefix(to("")))


def _wrong(refused: ServerRefused) -> Markup:
    fields = [join(tag("b", _field(place)), f": {words}") for place, words in refused.fields]
    hint = advice(refused.code, refused.hint) or None
    return note("This is not a policy yet", bullets(fields) if fields else refused.message, hint, tone="warn")


def _field(pointer: str) -> str:
    """What ``#/policy/blackout/0/first`` is called: "First"."""
    names = [part for part in pointer.strip("#/").split("/") if part and not part.isdigit()]
    return plain(names[-1]) if names else "Policy"
