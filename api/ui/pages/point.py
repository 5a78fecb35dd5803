"""A restore point: what it holds, how sure that is, why it was made so; hold, release, verify, copy, delete."""

from http import HTTPStatus

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.machines import TimelinePoint
from api.schemas.points import Copy, RestorePointDetail
from api.schemas.tasks import Task
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import files_page, go, machine_page, point_page, restore_page, task_page, to
from api.ui.pages.moments import moment_axis
from api.ui.pages.points import health
from api.ui.parts.blocks import button, card, facts, link_button, note
from api.ui.parts.chips import chip, consistency, label, reason_list, transports
from api.ui.parts.dialogs import ask, field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import count, duration, share, size


async def build(visit: Visit, point: str) -> None:
    """Draw it."""
    one = await visit.api.get(RestorePointDetail, f"/restore-points/{point}")
    moments = await visit.api.get(list[TimelinePoint], f"/machines/{one.machine}/timeline")
    await _Point(visit, one, moments).begin()


class _Point:
    """The page; what can be done changes what it shows."""

    def __init__(self, visit: Visit, one: RestorePointDetail, moments: list[TimelinePoint]) -> None:
        self._visit, self._one = visit, one
        self._top = Part(self._acted)
        self._message = Message()
        self._hold = Part()
        Part().show(card("Moment", moment_axis(visit, moments, one.id, point_page)))
        with ui.element("div").classes("lf-grid"):
            self._facts = Part(cls="w6")
            self._checked = Part(self._acted, cls="w6")
        Part().show(card("Disks", _disks(one), padded=False))
        Part().show(card("Why it was made so", reason_list(one.reasons)))

    async def begin(self) -> None:
        """Draw what may change."""
        visit, one = self._visit, self._one
        said = join(
            consistency(one.consistency.value),
            " ",
            label(one.level.value),
            " ",
            transports(one.transports),
            " ",
            health(one),
        )
        crumbs = (("Restore points", to("/restore-points")), (one.machine_name, machine_page(one.machine)))
        title = f"{one.machine_name}, {visit.clock.time(one.created_at)}"
        self._top.show(head(title, said, crumbs=crumbs, actions=_acts(visit, one)))
        self._hold.show(join(_held(visit, one)))
        self._facts.show(card("What it is", facts(_facts(visit, one))))
        self._checked.show(_checked(visit, one))

    async def _acted(self, act: Act) -> None:
        visit, message, one = self._visit, self._message, self._one
        match act.act:
            case "hold":
                await self._hold_it()
            case "release":
                doing = visit.api.call("POST", f"/restore-points/{one.id}/release")
                if await message.attempt("It was not released", doing) is not None:
                    message.done("It is held no more", "Retention may delete it from now on.")
            case "delete":
                await self._delete()
                return
            case "verify":
                await self._task("verifications", "It is being verified")
            case "index":
                await self._task("indexings", "Its files are being recorded")
            case "copies":
                found = visit.api.get(RestorePointDetail, f"/restore-points/{one.id}", copies="true")
                looked = await message.attempt("The other repositories did not answer", found)
                if looked is not None:
                    self._one = looked
                    await self.begin()
                return
        self._one = await visit.api.get(RestorePointDetail, f"/restore-points/{one.id}")
        await self.begin()

    async def _task(self, route: str, done: str) -> None:
        body = {"points": [self._one.id]}
        doing = self._visit.api.post(Task, f"/{route}", body, key=self._visit.api.new_key())
        task = await self._message.attempt("It cannot begin", doing)
        if task is not None:
            self._message.done(done, tag("a", "Watch it", href=task_page(task.id)))

    async def _hold_it(self) -> None:
        async def hold(act: Act, said: Message) -> bool:
            body = {"why": act.one("why").strip()}
            doing = self._visit.api.call("POST", f"/restore-points/{self._one.id}/hold", body)
            answer = await said.attempt("It is not held", doing)
            if answer is not None:
                self._message.done("It is held until somebody releases it")
            return answer is not None

        why = _why("Neither retention nor people delete it until it is released.")
        await ask("Hold this restore point", why, "Hold", doing=hold)

    async def _delete(self) -> None:
        one, visit = self._one, self._visit
        happens = (
            f"The state of {one.machine_name} of {visit.clock.full(one.created_at)} cannot be restored any more. "
            "Other restore points need nothing of it. Its space comes back with the next collection."
        )

        async def delete(act: Act, said: Message) -> bool:
            doing = visit.api.call("DELETE", f"/restore-points/{one.id}", why=act.one("why").strip())
            answer = await said.attempt("It was not deleted", doing)
            if answer is None:
                return False
            if answer.status_code == HTTPStatus.ACCEPTED:
                waits = tag("a", "See what waits", href=to("/approvals"))
                self._message.done(
                    "It waits for a second person", "Somebody else has to approve before it is deleted.", waits
                )
            else:
                go(machine_page(one.machine))
            return True

        await ask("Delete this restore point", _why(happens), "Delete for good", danger=True, doing=delete)


def _why(said: str) -> Markup:
    box = tag("input", type="text", id="p-why", name="why", required=True, maxlength="500")
    return join(tag("p", said), field("Why", box, for_="p-why", help_="Recorded in the access log."))


def _acts(visit: Visit, one: RestorePointDetail) -> Markup:
    return join(
        button("Delete", "delete", kind="danger") if visit.may(Permission.DELETE_POINTS) and not one.held else None,
        (button("Release", "release") if one.held else button("Hold", "hold", sign="lock"))
        if visit.may(Permission.MAINTAIN)
        else None,
        link_button("Files", files_page(one.id), sign="folder_open") if visit.may(Permission.BROWSE_FILES) else None,
        link_button("Restore", restore_page(one.id), kind="primary", sign="settings_backup_restore")
        if visit.may(Permission.RESTORE_MACHINES)
        else None,
    )


def _held(visit: Visit, one: RestorePointDetail) -> Markup | None:
    if one.hold is None:
        return None
    return note(f"It is held since {visit.clock.time(one.hold.since)}", one.hold.why, tone="run")


def _facts(visit: Visit, one: RestorePointDetail) -> list[tuple[str, Markup | str | None]]:
    clock = visit.clock
    parent = tag("a", "the one before", href=point_page(one.parent)) if one.parent else "none: everything was read"
    return [
        ("Taken", clock.full(one.created_at)),
        ("Sealed", clock.when(one.sealed_at)),
        ("From", ", ".join(dict.fromkeys(each for each in (one.host, one.hypervisor) if each))),
        ("Guest stood still", duration(one.frozen_seconds)),
        ("Disks", f"{count(one.disks, 'disk')}, {size(one.size)}"),
        ("Read", size(one.bytes_read)),
        ("New", f"{size(one.bytes_new)}, stored as {size(one.bytes_stored)}"),
        ("Compared with", parent),
        ("Configuration", one.configuration),
        ("Identity", tag("span", one.id, cls="lf-mono")),
    ]


def _checked(visit: Visit, one: RestorePointDetail) -> Markup:
    last = one.verification
    verified = "never"
    if last.verified_at is not None:
        verified = join(visit.clock.when(last.verified_at), f", {share(last.coverage)} of its bytes were read")
    recorded = visit.clock.when(one.files_indexed_at) if one.files_indexed_at else "no: they cannot be searched"
    rows: list[tuple[str, Markup | str | None]] = [
        ("State", health(one)),
        ("Verified", verified),
        *([("Damaged", chip("failed", said=size(last.damaged)))] if last.damaged else []),
        *([("Doubt", last.doubt)] if last.doubt else []),
        ("Files recorded", recorded),
        ("Copies", _copies(one.copies)),
    ]
    acts = None
    if visit.may(Permission.MAINTAIN):
        acts = tag(
            "div",
            button("Verify now", "verify", kind="small", sign="verified"),
            button("Record its files", "index", kind="small") if not one.files_indexed else None,
            cls="lf-inline",
            style="margin-top:12px",
        )
    why = reason_list(one.index_reasons) if one.index_reasons else None
    more = tag("details", tag("summary", "Who read its files"), why, cls="lf-more") if why else None
    return card("How sure it is", facts(rows), acts, more)


def _copies(copies: list[Copy] | None) -> Markup:
    if copies is None:
        return button("Look for copies", "copies", kind="small")
    if not copies:
        return tag("span", "no second repository is configured", cls="lf-dim")
    return join(*(_copy(one) for one in copies), between=" ")


def _copy(one: Copy) -> Markup:
    if one.there is None:
        return chip("warning", said=f"{one.repository}: {one.problem or 'not known'}")
    return chip("done" if one.there else "idle", said=f"{one.repository}: {'there' if one.there else 'not there'}")


def _disks(one: RestorePointDetail) -> Markup:
    rows = [
        (
            image.key,
            size(image.size),
            label(image.level.value),
            join(transports((image.transport,)), " ", tag("span", image.source, cls="lf-dim lf-small lf-mono")),
            size(image.bytes_read),
            size(image.bytes_new),
            reason_list(image.reasons) if image.reasons else None,
        )
        for image in one.images
    ]
    titles = ("Disk", "Size", "Level", "Read by", "Read", "New", "Why")
    return plain_table("Disks", titles, rows, numbers=(1, 4, 5))
