"""A guest's files in memory: the port ``GuestFiles`` as it is meant, and what a guest may be that can do less."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from proxy.closing import Closeable
from proxy.errors import GuestAgentUnavailable, GuestRefused
from proxy.guest_files import (
    EXISTS,
    OWNER,
    GuestAction,
    GuestAttributes,
    GuestFile,
    GuestFileKind,
    MakeDirectory,
    MakeLink,
    Outcome,
    PlaceFile,
    SetAttributes,
    Staged,
)
from proxy.units import GiB

SPECIAL = 0o6000
"""Set-user-id and set-group-id."""


@dataclass(slots=True)
class Content:
    """Of a file (several names may share it), or a symbolic link's target."""

    kind: GuestFileKind
    data: bytes = b""
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0


@dataclass(slots=True)
class MemoryGuest:
    """What the guest has, by path without a slash at its end (``b""`` is the root). ``root_user``: its agent may set owners.
    ``answers``: False, and its agent is gone. ``full``: bytes of a file that it takes no more of."""

    machine: str = "00000000-0000-0000-0000-000000000001"
    root_user: bool = True
    answers: bool = True
    full: int = GiB
    entries: dict[bytes, Content] = field(default_factory=lambda: {b"": Content(GuestFileKind.DIRECTORY, mode=0o755)})


class MemoryGuestFiles(Closeable):
    """See the port. ``calls``: names of the calls so far."""

    system = "linux"
    can_set_mode = True
    can_set_times = True
    can_symlink = True
    can_hard_link = True
    can_take_any_name = True
    time_step_ns = 1

    def __init__(self, guest: MemoryGuest, root: bytes) -> None:
        self.machine = guest.machine
        self.root = root.rstrip(b"/") or b"/"
        self.can_set_owner = guest.root_user
        self.calls: list[str] = []
        self.staged: dict[str, bytes] = {}
        self._guest = guest
        self._number = 0
        if not root.startswith(b"/"):
            raise GuestRefused(guest.machine, root.decode(errors="replace"), "it is no absolute path")
        self._called("open")
        place = b""
        for part in self.root.split(b"/")[1:]:
            if part:
                place += b"/" + part
                self._guest.entries.setdefault(place, Content(GuestFileKind.DIRECTORY, mode=0o755))

    def free_space(self) -> int | None:
        """See the port."""
        return self._guest.full

    def list_directory(self, path: bytes) -> Mapping[bytes, GuestFile] | None:
        """See the port."""
        self._called("list_directory")
        above = path.rstrip(b"/")
        entries = self._guest.entries
        if above not in entries or entries[above].kind is not GuestFileKind.DIRECTORY:
            return None
        return {
            name.rpartition(b"/")[2]: GuestFile(content.kind, len(content.data), content.mtime_ns)
            for name, content in entries.items()
            if name and name.rpartition(b"/")[0] == above
        }

    def stage(self, size: int, pieces: Iterable[bytes]) -> Staged:
        """See the port."""
        self._called("stage")
        content = bytearray()
        for piece in pieces:
            content += piece
            if len(content) > min(size, self._guest.full):
                break
        if len(content) > self._guest.full:
            raise GuestRefused(self.machine, "a file", "no space left on device")
        if len(content) != size:
            raise GuestRefused(self.machine, "a file", f"its content is not the {size} bytes that were announced")
        self._number += 1
        self.staged[str(self._number)] = bytes(content)
        return Staged(str(self._number), size)

    def apply(self, actions: Sequence[GuestAction]) -> Sequence[Outcome]:
        """See the port."""
        self._called("apply")
        return [self._done(action) for action in actions]

    def close(self) -> None:
        """See the port."""
        self.staged.clear()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if not self._guest.answers:
            raise GuestAgentUnavailable(self.machine, "it does not answer")

    def _done(self, action: GuestAction) -> Outcome:
        above = self._guest.entries.get(action.path.rpartition(b"/")[0])
        there = self._guest.entries.get(action.path)
        if isinstance(action, PlaceFile):
            data = self.staged.pop(action.staged.id, None)
            if data is None:
                return Outcome("nothing was staged")
        if above is None or above.kind is not GuestFileKind.DIRECTORY:
            return Outcome("no such directory")
        match action:
            case MakeDirectory():
                return self._made(action.path, there)
            case SetAttributes():
                return self._set(there, action.attributes) if there is not None else Outcome("no such file")
            case MakeLink():
                return self._linked(action, there)
            case PlaceFile():
                if (refused := _in_the_way(there, overwrite=action.overwrite)) is not None:
                    return refused
                made = self._guest.entries[action.path] = Content(GuestFileKind.FILE, data or b"")
                return self._set(made, action.attributes)

    def _made(self, path: bytes, there: Content | None) -> Outcome:
        if there is None:
            self._guest.entries[path] = Content(GuestFileKind.DIRECTORY, mode=0o700)
        elif there.kind is not GuestFileKind.DIRECTORY:
            return Outcome(f"a {there.kind.value} is in its place")
        return Outcome()

    def _linked(self, action: MakeLink, there: Content | None) -> Outcome:
        entries = self._guest.entries
        if action.hard:
            found = entries.get(action.target)
            if found is None:
                return Outcome("no such file")
            if found is there:
                return Outcome()
        else:
            found = Content(GuestFileKind.SYMLINK, action.target, 0o777)
            if there is not None and there.kind is GuestFileKind.SYMLINK and there.data == action.target:
                return Outcome()
        if (refused := _in_the_way(there, overwrite=action.overwrite)) is not None:
            return refused
        entries[action.path] = found
        return Outcome() if action.hard else self._set(found, replace(action.attributes, mode=None))

    def _set(self, content: Content, wanted: GuestAttributes) -> Outcome:
        lost: tuple[str, ...] = ()
        if wanted.mode is not None:
            content.mode = wanted.mode
        if wanted.mtime_ns is not None:
            content.mtime_ns = wanted.mtime_ns
        if wanted.uid is not None or wanted.gid is not None:
            if self._guest.root_user:
                content.uid = content.uid if wanted.uid is None else wanted.uid
                content.gid = content.gid if wanted.gid is None else wanted.gid
            else:
                content.mode &= ~SPECIAL
                lost = (OWNER,)
        return Outcome(lost=lost)


def _in_the_way(there: Content | None, *, overwrite: bool) -> Outcome | None:
    if there is None:
        return None
    if not overwrite:
        return Outcome(EXISTS, exists=True)
    if there.kind is GuestFileKind.DIRECTORY:
        return Outcome("a directory is in its place")
    return None
