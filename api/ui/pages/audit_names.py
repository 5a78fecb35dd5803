"""What identities in the access log are called: machines by their names, restore points by their moments."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

from api.paging import MOST, Page
from api.schemas.audit import AuditEntry
from api.schemas.machines import Machine, MachineDetail, TimelinePoint
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import machine_page, point_page
from api.ui.visit import Visit
from proxy.errors import ServerRefused

T = TypeVar("T")

_AT_ONCE = 4
"""Questions: a page of the log names some machines, and other people ask the API meanwhile."""

_SHORT = 8
"""Letters of an identity that nothing is known of any more: enough to see that two are not the same."""


class Named:
    """What one page of the console has looked up so far."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._machines: dict[str, str | None] = {}
        self._timelines: set[str] = set()
        self._points: dict[str, datetime] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def look_up(self, entries: Sequence[AuditEntry]) -> None:
        """What these are about. Raises ``ServerRefused`` unless a thing is merely gone or out of reach."""
        machines = {one.machine for one in entries if one.machine} - self._machines.keys()
        with_points = {one.machine for one in entries if one.machine and one.restore_point} - self._timelines
        await asyncio.gather(*map(self._name, sorted(machines)), *map(self._moments, sorted(with_points)))

    async def asking(self, filters: Mapping[str, str]) -> Mapping[str, str]:
        """A machine by its name, or still by its identity."""
        said = filters.get("machine", "")
        if not said:
            return filters
        found = await self._visit.api.get(Page[Machine], "/machines", q=said, limit=MOST)
        same = [one.id for one in found.items if one.name.casefold() == said.casefold()]
        if not same and len(found.items) == 1:  # a part of a name that only one has
            same = [found.items[0].id]
        return {**filters, "machine": same[0] if same else said}

    def about(self, one: AuditEntry) -> Markup:
        """What an entry is about, with links to what there still is."""
        return join(
            *(part for part in (self._machine(one.machine), self._point(one.restore_point)) if part), between=", "
        )

    def _machine(self, id_: str | None) -> Markup | None:
        if not id_:
            return None
        name = self._machines.get(id_)
        if name is None:
            return tag("span", f"machine {id_[:_SHORT]}", title=id_)
        return tag("a", name, href=machine_page(id_), title=id_)

    def _point(self, id_: str | None) -> Markup | None:
        if not id_:
            return None
        moment = self._points.get(id_)
        if moment is None:
            return tag("span", f"restore point {id_[:_SHORT]}", title=id_)
        return tag("a", f"restore point of {self._visit.clock.time(moment)}", href=point_page(id_), title=id_)

    async def _name(self, machine: str) -> None:
        found = await self._there(MachineDetail, f"/machines/{quote(machine, safe='')}")
        self._machines[machine] = found.name if found is not None else None

    async def _moments(self, machine: str) -> None:
        points = await self._there(list[TimelinePoint], f"/machines/{quote(machine, safe='')}/timeline")
        self._timelines.add(machine)
        self._points.update((point.id, point.created_at) for point in points or ())

    async def _there(self, type_: type[T], path: str) -> T | None:
        async with self._room:
            try:
                return await self._visit.api.get(type_, path)
            except ServerRefused as refused:
                if refused.status in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
                    return None
                raise
