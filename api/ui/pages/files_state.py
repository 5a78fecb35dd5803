"""What somebody looks at in a restore point's files, and what they have picked so far: one of these for each open page."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.paging import Page
from api.schemas.files import Facts, FoundFiles, GuestVolume, Listing, Volumes
from api.schemas.guest_names import bytes_of, id_of, text_of
from api.schemas.mounts import Mount, MountState
from api.schemas.points import RestorePointDetail
from api.ui.visit import Visit

ROWS = 100
"""Entries of a page of a directory."""

TREE_ROWS = 200
"""Directories that the tree shows of one directory: more than that is a list to search in, not a tree."""

HELD = 6
"""Sessions that somebody may hold before the oldest makes room for a new one: the API allows some more, for other programs."""

POLL_SECONDS = 1.0
"""Between two looks at a restore point that is being opened, which takes seconds to a minute."""

ROOT = id_of(b"/")


def ancestors(path_id: str, roots: Sequence[str] = ()) -> list[str]:
    """Ids of the root and all directories down to this one. ``roots``: ids of the volumes' own: ``C:`` and ``/dev/sdb1:`` are
    one step, whatever slashes they hold."""
    path = bytes_of(path_id)
    first = b""
    for root in sorted(map(bytes_of, roots), key=len):
        if root.endswith(b":") and (path == root or path.startswith(root + b"/")):
            first = root
    found = [first] if first else []
    below = first
    for part in path[len(first) :].split(b"/"):
        if part:
            below = below + b"/" + part
            found.append(below)
    return [ROOT, *map(id_of, found)]


def parent_of(path_id: str) -> str:
    """The directory that holds it; of a drive the root."""
    return id_of(bytes_of(path_id).rpartition(b"/")[0] or b"/")


def name_of(path_id: str) -> str:
    """Its last part, for people."""
    return text_of(bytes_of(path_id).rstrip(b"/").rsplit(b"/", 1)[-1]) or "/"


def person_of(who: str) -> str:
    """The name in what the access log calls somebody, ``alice@192.0.2.7``; names may be addresses of mail themselves."""
    return who.rpartition("@")[0] or who


@dataclass
class Browsing:
    """``session``: the mount session that answers, where the files are not recorded or a key opened more. ``picked``: path id
    -> what it is; it survives going elsewhere in the same restore point. ``found``: of a search inside, until it is left."""

    visit: Visit
    point: RestorePointDetail
    path_id: str = ROOT
    session: Mount | None = None
    volumes: list[GuestVolume] = field(default_factory=list)
    listing: Listing | None = None
    cursors: list[str | None] = field(default_factory=lambda: [None])
    tree: dict[str, list[Facts]] = field(default_factory=dict)
    picked: dict[str, Facts] = field(default_factory=dict)
    asked: str = ""
    found: FoundFiles | None = None

    @property
    def files(self) -> str:
        """Route of the files of this restore point."""
        return f"/restore-points/{self.point.id}/files"

    @property
    def with_session(self) -> dict[str, Any]:
        """The parameter that names the session, if there is one."""
        return {"session": self.session.id} if self.session is not None else {}

    @property
    def recorded(self) -> bool:
        """Whether the catalog answers."""
        return self.point.files_indexed and self.session is None

    @property
    def rows(self) -> Sequence[Facts]:
        """What the list shows."""
        if self.found is not None:
            return self.found.items
        return self.listing.items if self.listing is not None else []

    async def prepare(self, alive: Callable[[], bool]) -> None:
        """Open the restore point where its files are not recorded; a session that is held already is used again. Raises
        ``ServerRefused``. ``alive``: whether anybody still waits for it."""
        held = await self.visit.api.get(list[Mount], "/mount-sessions")
        mine = [one for one in held if person_of(one.opened_by) == self.visit.name]
        fit = [one for one in mine if one.point == self.point.id and one.state is not MountState.FAILED]
        fit = [one for one in fit if one.keys or not self.point.files_indexed]
        if fit:
            self.session = max(fit, key=lambda one: one.keys)
        elif not self.point.files_indexed:
            if len(mine) >= HELD:
                await self.visit.api.delete(f"/mount-sessions/{min(mine, key=lambda one: one.opened_at).id}")
            await self.open()
        await self.wait(alive)

    async def open(self, volume: str = "", secret: str = "") -> None:
        """Open it, with a key for a volume. Raises ``ServerRefused``."""
        keys = [{"volume": volume, "secret": secret}] if secret else []
        before = self.session
        self.session = await self.visit.api.post(Mount, "/mount-sessions", {"point": self.point.id, "keys": keys})
        if before is not None:
            await self.visit.api.delete(f"/mount-sessions/{before.id}")
        self.tree.clear()

    async def wait(self, alive: Callable[[], bool]) -> None:
        """Until the session is open, or has failed, or nobody waits for it any more. Raises ``ServerRefused``."""
        while self.session is not None and self.session.state is MountState.OPENING and alive():
            self.session = await self.visit.api.get(Mount, f"/mount-sessions/{self.session.id}", background=True)
            if self.session.state is MountState.OPENING:
                await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Get the page of the directory, its volumes, and the tree down to it. Raises ``ServerRefused``."""
        api, more = self.visit.api, self.with_session
        if not self.volumes or self.session is not None:
            self.volumes = (await api.get(Volumes, f"/restore-points/{self.point.id}/volumes", **more)).volumes
        self.listing = await api.get(
            Listing, self.files, path_id=self.path_id, limit=ROWS, cursor=self.cursors[-1], **more
        )
        for above in self.way:
            if above not in self.tree:
                listed = await api.get(
                    Page[Facts], self.files, path_id=above, type="directory", limit=TREE_ROWS, **more
                )
                self.tree[above] = listed.items

    async def search(self) -> None:
        """Look for ``asked`` in all recorded files of this restore point. Raises ``ServerRefused``."""
        self.found = await self.visit.api.get(
            FoundFiles, "/files/search", q=self.asked, point=self.point.id, limit=ROWS, cursor=self.cursors[-1]
        )

    @property
    def way(self) -> list[str]:
        """Ids of the directories from the root down to where it is."""
        return ancestors(self.path_id, [volume.root_id for volume in self.volumes])

    def enter(self, path_id: str) -> None:
        """Go to a directory."""
        self.path_id, self.cursors, self.found, self.asked = path_id, [None], None, ""

    def pick(self, path_id: str, *, on: bool) -> None:
        """Take a row into what is picked, or out of it."""
        row = next((one for one in self.rows if one.path_id == path_id), None)
        if on and row is not None:
            self.picked[path_id] = row
        elif not on:
            self.picked.pop(path_id, None)
