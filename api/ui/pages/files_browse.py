"""The files of a restore point: its moment on the time axis, a tree, a list that can be searched, what was picked."""

from typing import Final
from urllib.parse import urlencode

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.machines import TimelinePoint
from api.schemas.points import RestorePointDetail
from api.schemas.tasks import Task
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import compare_page, files_page, go, machine_page, point_page, restore_page, task_page, to
from api.ui.pages.files_drawing import found_line, listing_card, picked_card, tree_of, unread_notes, volumes_card
from api.ui.pages.files_state import Browsing
from api.ui.pages.files_taking import download, to_directory, to_guest, unlock
from api.ui.pages.moments import moment_axis
from api.ui.parts.advice import advice
from api.ui.parts.blocks import card, link_button, note
from api.ui.parts.chips import consistency
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message, said
from api.ui.visit import Visit
from proxy.errors import ServerRefused


async def build(visit: Visit, point: str) -> None:
    """Draw it; what takes time is drawn when it is there."""
    one = await visit.api.get(RestorePointDetail, f"/restore-points/{point}")
    moments = await visit.api.get(list[TimelinePoint], f"/machines/{one.machine}/timeline")
    page = _Browser(visit, one, moments)
    ui.timer(0.05, page.begin, once=True)


class _Browser:
    """The page. Parts: heading and axis once; tree, list and picked things whenever they change."""

    def __init__(self, visit: Visit, point: RestorePointDetail, moments: list[TimelinePoint]) -> None:
        self._visit = visit
        self._moments = moments
        self._state = Browsing(visit, point)
        if asked := visit.query.get("path_id"):
            self._state.path_id = asked
        Part().show(_heading(visit, point))
        axis = moment_axis(visit, moments, point.id, lambda one: files_page(one, self._state.path_id))
        Part(self._acted).show(card("Moment", axis, right=self._comparer()))
        self._message = Message()
        self._trouble = Part(self._acted, live=True)
        with ui.element("div").classes("lf-cols lf-browser"):
            self._tree = Part(self._acted)
            with ui.element("div").classes("lf-gapped"):
                self._list = Part(self._acted)
                self._picked = Part(self._acted)
                self._volumes = Part(self._acted)
        self._list.show(card("Files", tag("p", "Looking…", cls="lf-dim")))

    async def begin(self) -> None:
        """Open what has to be opened, and show the directory."""
        state = self._state
        if not state.point.files_indexed:
            self._trouble.show(
                note(
                    "The restore point is being opened",
                    "The files of this one are not recorded, so that its disks are looked into. It takes up to a minute.",
                    tone="run",
                )
            )
        try:
            await state.prepare(self._alive)
        except ServerRefused as refused:
            self._failed(refused, "It cannot be opened")
            return
        if self._alive():
            await self._show()

    def _alive(self) -> bool:
        return not self._list.element.is_deleted

    async def _show(self) -> None:
        state = self._state
        if state.session is not None and state.session.problem is not None:
            problem = state.session.problem
            self._trouble.show(
                note("It cannot be opened", problem.message, advice(problem.code, problem.hint), tone="bad")
            )
            self._list.show(join())
            return
        try:
            await (state.search() if state.asked else state.look())
        except ServerRefused as refused:
            self._failed(refused, "This cannot be shown")
            return
        self._trouble.show(unread_notes(state))
        self._draw()

    def _failed(self, refused: ServerRefused, what: str) -> None:
        back = tag("p", tag("a", "Begin at the root", href=files_page(self._state.point.id)))
        self._trouble.show(join(said(refused, what), back))
        self._list.show(join())

    def _draw(self) -> None:
        state = self._state
        self._tree.show(tree_of(state))
        self._list.show(listing_card(state, found_line(state)))
        self._picked.show(picked_card(state))
        self._volumes.show(volumes_card(state))

    async def _acted(self, act: Act) -> None:
        state = self._state
        match act.act:
            case "enter":
                state.enter(act.key)
                ui.navigate.history.replace(files_page(state.point.id, act.key))
                await self._show()
            case "search":
                state.asked, state.cursors, state.found = act.one("q").strip(), [None], None
                await self._show()
            case "next":
                state.cursors.append(act.key)
                await self._show()
            case "back" if len(state.cursors) > 1:
                state.cursors.pop()
                await self._show()
            case "pick":
                state.pick(act.key, on=act.value == "true")
                self._draw()
            case "pick-all":
                for row in state.rows:
                    state.pick(row.path_id, on=act.value == "true")
                self._draw()
            case "drop":
                state.picked.pop(act.key, None)
                self._draw()
            case "drop-all":
                state.picked.clear()
                self._draw()
            case _:
                await self._taken(act)

    async def _taken(self, act: Act) -> None:
        state, message = self._state, self._message
        match act.act:
            case "raw":
                await download(state, message, [act.key], "raw")
            case "download":
                await download(state, message, list(state.picked), act.one("format", "zip"), full=bool(act.one("full")))
            case "to-directory":
                await to_directory(state, message)
            case "to-guest":
                await to_guest(state, message)
            case "unlock":
                if await unlock(state, message, act.key, self._alive):
                    await self._show()
            case "index":
                await self._index()
            case "compare" if act.value:
                go(compare_page(act.value, state.point.id, state.path_id))

    async def _index(self) -> None:
        asked = self._visit.api.post(
            Task, "/indexings", {"points": [self._state.point.id]}, key=self._visit.api.new_key()
        )
        task = await self._message.attempt("The files are not recorded", asked)
        if task is not None:
            self._message.done("Its files are being recorded", tag("a", "Watch it", href=task_page(task.id)))

    def _comparer(self) -> Markup | None:
        others = [one for one in reversed(self._moments) if one.id != self._state.point.id]
        if not others:
            return None
        clock = self._visit.clock
        options = [tag("option", "Compare with…", value="")]
        options += [tag("option", clock.time(one.created_at), value=one.id) for one in others[:_MOST_OTHERS]]
        return tag("select", *options, aria_label="Compare with another moment", cls="lf-in", data_act="compare")


_MOST_OTHERS: Final = 200
"""Moments to choose from in a list: the axis has all of them."""


def _heading(visit: Visit, point: RestorePointDetail) -> Markup:
    whole = (
        link_button("Restore the machine", restore_page(point.id), sign="settings_backup_restore")
        if visit.may(Permission.RESTORE_MACHINES)
        else None
    )
    said_ = join("As of ", visit.clock.full(point.created_at), " ", consistency(point.consistency.value))
    details = link_button("Restore point", point_page(point.id), sign="info")
    lost = link_button("I lost a file", to(f"/restore/lost?{urlencode({'machine': point.machine_name})}"))
    return head(
        f"Files of {point.machine_name}",
        said_,
        crumbs=(("Restore files", to("/restore/files")), (point.machine_name, machine_page(point.machine))),
        actions=join(lost, details, whole),
    )
