"""The wizard that restores a whole machine: moment, target, a summary of exactly what will happen, and only then the order."""

from typing import Any

from nicegui import ui
from pydantic import ValidationError

from api.schemas.machines import Machine, TimelinePoint
from api.schemas.points import RestorePointDetail
from api.schemas.restores import PlannedDisk, RestorePlan, RestorePreview, RestoreTargets
from api.schemas.tasks import Task
from api.ui.frame import head
from api.ui.markup import Child, Markup, join, tag
from api.ui.pages.addresses import go, machine_page, restore_page, task_page, to
from api.ui.pages.moments import moment_axis
from api.ui.pages.restore_plan import form, left_out, plan_of, wrong_with
from api.ui.pages.restore_vsphere import NoPlanError, is_vsphere, one_of, site_of, where_it_goes
from api.ui.parts.advice import advice
from api.ui.parts.blocks import bullets, card, facts, note
from api.ui.parts.chips import chip, consistency
from api.ui.parts.dialogs import field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import duration, sentence, size

_EFFECTS = {
    "new": "A new machine is defined, beside whatever there is. It is left off.",
    "replaced": "Its definition is replaced by that of the restore point. It is left off.",
    "recreated": "It exists no more: it is defined again as it was, and left off.",
    "disks-only": "Only disks are written; no machine is defined.",
    "attached": "It gets the disk, beside its own, which stay as they are.",
}

_ASIDE = "The restored one takes its place, and is left off; what there is of it steps aside under another name."
"""Of vSphere, which never overwrites a machine."""


async def build(visit: Visit, point: str) -> None:
    """Draw the wizard."""
    one = await visit.api.get(RestorePointDetail, f"/restore-points/{point}")
    moments = await visit.api.get(list[TimelinePoint], f"/machines/{one.machine}/timeline")
    crumbs = (("Restore a machine", to("/restore/machine")), (one.machine_name, machine_page(one.machine)))
    said = join("As of ", visit.clock.full(one.created_at), " ", consistency(one.consistency.value))
    Part().show(head(f"Restore {one.machine_name}", said, crumbs=crumbs))
    Part().show(card("Moment", moment_axis(visit, moments, one.id, restore_page)))
    if one.health.value in ("damaged", "suspect"):
        why = one.verification.doubt or "Verification found that some of it cannot be read."
        Part().show(
            note("This restore point cannot be counted on", why, "Choose another moment if you can.", tone="bad")
        )
    wizard = _Wizard(visit, one)
    ui.timer(0.05, wizard.begin, once=True)


class _Wizard:
    """The form, and below it what it comes to. ``_asked``: how often the form was changed or looked through: what was foreseen
    of an older one is shown to nobody."""

    def __init__(self, visit: Visit, point: RestorePointDetail) -> None:
        self._visit, self._point = visit, point
        self._plan: RestorePlan | None = None
        self._preview: RestorePreview | None = None
        self._site = ""
        self._asked = 0
        self._form = Part(self._acted)
        self._message = Message()
        self._summary = Part(self._acted, live=True)
        self._form.show(card("Places", tag("p", "Looking at hosts and storage…", cls="lf-dim")))

    async def begin(self) -> None:
        """Ask where it can go, and draw the form."""
        doing = self._visit.api.get(RestoreTargets, "/restores/targets")
        targets = await self._message.attempt("Where it can go is not known", doing)
        if targets is not None:
            self._site = site_of(self._point, targets)
            self._form.show(form(self._point, targets))

    async def _acted(self, act: Act) -> None:
        match act.act:
            case "changed":  # what was shown is not what would be ordered now
                self._forget()
                self._summary.show(join())
            case "preview":
                await self._look(act)
            case "restore":
                await self._order(act)

    def _forget(self) -> int:
        self._plan = self._preview = None
        self._asked += 1
        return self._asked

    async def _look(self, act: Act) -> None:
        mine = self._forget()
        self._summary.show(card("What will happen", tag("p", "Looking at what lives there now…", cls="lf-dim")))
        try:
            plan = plan_of(self._point, act)
            found = await self._message.attempt("It cannot be foreseen", self._foreseen(plan))
        except (ValidationError, NoPlanError) as error:
            if mine == self._asked:
                self._summary.show(note("This is not a plan yet", *wrong_with(error), tone="bad"))
            return
        if mine != self._asked:
            return
        if found is None:
            self._summary.show(join())
            return
        self._plan, self._preview, into = found
        self._summary.show(_summary(self._visit, self._point, self._plan, self._preview, into))

    async def _foreseen(self, plan: RestorePlan) -> tuple[RestorePlan, RestorePreview, Machine | None]:
        """The plan with the identity of the machine that is given the disk, what it comes to, and that machine. Raises
        ``NoPlanError``, ``ServerRefused``."""
        api, into = self._visit.api, None
        if plan.attach:
            called = api.items(Machine, "/machines", q=plan.attach, hypervisor=self._site or None, limit=200)
            into = one_of([one async for one in called], plan.attach)
            plan = plan.model_copy(update={"attach": into.id})
        return plan, await api.post(RestorePreview, "/restores/preview", _whole(plan)), into

    async def _order(self, act: Act) -> None:
        plan, seen = self._plan, self._preview
        if plan is None or seen is None or seen.confirm is None:
            return
        typed = typed_name(seen)
        if typed and act.one("typed").strip() != typed:
            self._message.refuse("Nothing was restored", f"Type “{typed}” to confirm that what is there may go.")
            return
        order = {**_whole(plan), "confirm": seen.confirm}
        doing = self._visit.api.post(Task, "/restores", order, key=self._visit.api.new_key())
        task = await self._message.attempt("Nothing was restored", doing)
        if task is not None:
            go(task_page(task.id))


def _whole(plan: RestorePlan) -> dict[str, Any]:
    """As JSON, with the kinds of places, which are defaults."""
    return plan.model_dump(mode="json")


def typed_name(seen: RestorePreview) -> str:
    """What has to be typed before it is done: the name of the machine, where something there may be lost; else nothing."""
    goes = any(disk.effect != "create" for disk in seen.disks) or seen.result.effect == "replaced"
    return seen.machine.name if goes else ""


def _summary(
    visit: Visit, point: RestorePointDetail, plan: RestorePlan, seen: RestorePreview, into: Machine | None
) -> Markup:
    rows = _machine(point, plan, seen) if into is None else _given(into)
    took = "nobody knows yet" if seen.estimated_seconds is None else f"about {duration(seen.estimated_seconds)}"
    rows += [
        ("Written", f"{size(seen.total_bytes)} to {len(seen.disks)} place{'' if len(seen.disks) == 1 else 's'}"),
        ("It takes", took),
    ]
    # Of a disk that is given to a machine nobody expects the others.
    missing = [line for line in (left_out(point, plan), *seen.left_out) if line and into is None]
    body = [
        card("What will happen", facts(rows)),
        card("Disks", _disks(seen.disks), padded=False) if seen.disks else None,
        note("The restored machine will not have", bullets(missing), tone="warn") if missing else None,
        *(note("Think of this", sentence(warning), tone="warn") for warning in seen.warnings),
        *(
            note(sentence(one.message), sentence(advice(one.code, one.hint)) or None, tone="bad")
            for one in seen.refusals
        ),
        _confirm(visit, seen, into),
    ]
    return tag("div", *body, cls="lf-gapped")


def _machine(point: RestorePointDetail, plan: RestorePlan, seen: RestorePreview) -> list[tuple[str, Child]]:
    result, vsphere = seen.result, is_vsphere(point)
    now = f" Now it is {result.now.value}." if result.effect == "replaced" and result.now is not None else ""
    becomes = _ASIDE if vsphere and result.effect == "replaced" else _EFFECTS[result.effect]
    return [
        ("Machine", join(tag("b", result.name), f" on {result.host}")),
        ("What becomes of it", f"{becomes}{now}"),
        *(where_it_goes(plan, seen) if vsphere else ()),
        ("Its network", "connected" if result.connected else "links down"),
    ]


def _given(into: Machine) -> list[tuple[str, Child]]:
    return [
        ("Given to", join(tag("b", into.name), f" on {into.host}")),
        ("What becomes of it", _EFFECTS["attached"]),
    ]


def _disks(disks: list[PlannedDisk]) -> Markup:
    rows = [
        (
            disk.key,
            join(tag("span", disk.place, cls="lf-mono"), _device(disk)),
            size(disk.size),
            _effect(disk),
            _there(disk),
        )
        for disk in disks
    ]
    return plain_table(
        "Disks", ("Disk", "Goes to", "Size", "Effect", "What is there now"), rows, numbers=(2,), stack=True
    )


def _device(disk: PlannedDisk) -> Markup | None:
    return tag("div", disk.device, cls="lf-dim lf-small") if disk.device and disk.device != disk.place else None


def _effect(disk: PlannedDisk) -> Markup:
    return {
        "create": chip("done", said="Nothing is there"),
        "overwrite": chip("failed", said="Overwritten"),
        "unknown": chip("warning", said="Nobody could look"),
    }[disk.effect]


def _there(disk: PlannedDisk) -> Markup:
    lives = [
        f"{one.machine.name} {one.disk} ({one.state.value}){': this machine' if one.same else ''}"
        for one in disk.occupants
    ]
    words = [*lives, *([disk.content] if disk.content else [])]
    return tag("span", "; ".join(words)) if words else tag("span", "nothing that is known", cls="lf-dim")


def _confirm(visit: Visit, seen: RestorePreview, into: Machine | None) -> Markup | None:
    if seen.confirm is None:
        return (
            note("It would be refused as it is", "Change the plan above, and look again.", tone="bad")
            if not seen.refusals
            else None
        )
    typed = typed_name(seen)
    box = None
    if typed:
        box = field(
            f"Type {typed} to confirm that what is there now may go",
            tag("input", type="text", id="r-typed", name="typed", required=True, autocomplete="off"),
            for_="r-typed",
        )
    kind = "primary danger" if typed else "primary"
    do = f"Restore {seen.machine.name}" if into is None else f"Give the disk to {into.name}"
    send = tag("button", do, type="submit", cls=f"lf-btn {kind}")
    until = tag(
        "span",
        f"As shown until {visit.clock.time(seen.valid_until)}; looked at once more before it begins.",
        cls="lf-dim",
    )
    return tag("form", box, tag("div", send, until, cls="lf-inline"), data_act="restore", cls="lf-card lf-body")
