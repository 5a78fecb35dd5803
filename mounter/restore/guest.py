"""Restored files back into a running guest, through its hypervisor's agent: ``FileTarget`` over ``GuestFiles``.

::

    file      listed as there, same size and time ──> UNCHANGED, nothing is sent
              else                                ──> content staged, PENDING ─┐
    directory, link, attributes                   ──> PENDING ─────────────────┤
                                                     a batch is full: apply ◄──┘ problems are kept for finish

An agent is slow to begin and slow to send; so what is there already is found by listing directories, one question each, and
all that changes names is done in batches. A push that broke off is started again in the same way: every file that has its
name is whole.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mounter.ports import FileEntry, FileType, shown
from mounter.restore.attributes import xattrs_of
from mounter.targets import Action, Item, Placed, Problem
from proxy.closing import Closeable
from proxy.errors import (
    FileNotRestored,
    GuestAgentUnavailable,
    GuestRefused,
    HostUnreachable,
    HypervisorError,
    TargetFailed,
)
from proxy.guest_files import (
    GuestAction,
    GuestAttributes,
    GuestFile,
    GuestFileKind,
    GuestFiles,
    MakeDirectory,
    MakeLink,
    PlaceFile,
    SetAttributes,
)
from proxy.units import MiB

BATCH = 256
"""Actions that wait for each other: they share one program in the guest, which takes as long to begin as thirty of them take.
More would be lost, and sent again, when a push breaks off."""

BATCH_BYTES = 1 * MiB
"""Content that waits for its name. Half a second of sending: as much is sent again after a push that broke off."""

PROBLEMS_KEPT = 10_000
"""Told one by one at the end. A tree of which nothing can be placed must not fill the memory."""

OVERWRITE_HINT = "say --overwrite to replace it, or push to another directory"

# Whatever the agent, the host or libvirt says about the whole of it; nothing further can be sent then.
_OVER = (GuestAgentUnavailable, HypervisorError, HostUnreachable)


@dataclass(slots=True)
class _Level:
    """A directory under way. ``there``: what was in it, ``None`` until it is asked for."""

    path: bytes
    there: Mapping[bytes, GuestFile] | None


class GuestTarget(Closeable):
    """Closes ``files``, too. ``overwrite``: files and links of the guest that are not the same are replaced; directories
    never are. ``late_losses``: what could not be set on entries that were ``PENDING`` -> on how many."""

    def __init__(self, files: GuestFiles, *, overwrite: bool = False) -> None:
        self._files = files
        self._overwrite = overwrite
        self._levels: list[_Level] = []
        self._root = _Level(b"", None)
        self._waiting: list[tuple[bytes, GuestAction]] = []
        self._staged = 0
        self._problems: list[Problem] = []
        self._failures = 0
        self.late_losses: Counter[str] = Counter()

    def directory(self, path: bytes, item: Item) -> Placed:
        """See the port."""
        if not path:
            return Placed()
        there = self._there(path)
        if there is not None and there.kind is not GuestFileKind.DIRECTORY:
            raise FileNotRestored(shown(path), f"in the guest a {there.kind.value} is in its place")
        self._levels.append(_Level(path, None if there is not None else {}))
        self._add(path, MakeDirectory(self._guest(path)))
        return Placed(Action.PENDING)

    def leave_directory(self, path: bytes, item: Item) -> Placed:
        """See the port. The target itself keeps the attributes that it has: the path on the command line named it."""
        if not path:
            return Placed(losses=("mode, owner and times of the target directory itself",))
        self._levels.pop()
        self._add(path, SetAttributes(self._guest(path), _attributes(item.entry)))
        return Placed(Action.PENDING, _attribute_losses(item))

    def file(self, path: bytes, item: Item) -> Placed:
        """See the port."""
        entry, there = item.entry, self._there(path)
        if there is not None:
            if self._same(there, entry):
                return Placed(Action.UNCHANGED)
            self._check_taken(path, there)
        try:
            staged = self._files.stage(entry.size, item.pieces())
        except GuestRefused as error:
            if "no space" in error.why.lower():
                with suppress(TargetFailed):  # what is whole shall stay; what could not be sent has made room
                    self._apply()
                raise TargetFailed(f"guest {self._files.machine}", error.why, hint="free space in the guest") from error
            raise FileNotRestored(shown(path), error.message, hint=error.hint) from error
        except _OVER as error:
            raise TargetFailed(f"guest {self._files.machine}", error.message, hint=error.hint) from error
        self._staged += entry.size
        self._add(path, PlaceFile(self._guest(path), staged, _attributes(entry), overwrite=self._overwrite))
        holes = ("holes of sparse files (zeroes were written)",) if 0 <= entry.allocated < entry.size // 2 else ()
        return Placed(Action.PENDING, holes + _attribute_losses(item), written=entry.size)

    def symlink(self, path: bytes, item: Item) -> Placed:
        """See the port. One that is there is compared in the guest."""
        if not self._files.can_symlink:
            return Placed(Action.LEFT_OUT, ("symbolic links (its agent cannot make them)",))
        there = self._there(path)
        if there is not None and there.kind is not GuestFileKind.SYMLINK:
            self._check_taken(path, there)
        target, attributes = item.entry.link_target or b"", _attributes(item.entry)
        self._add(path, MakeLink(self._guest(path), target, attributes=attributes, overwrite=self._overwrite))
        return Placed(Action.PENDING)

    def hard_link(self, path: bytes, item: Item, existing: bytes) -> Placed:
        """See the port."""
        if self._files.can_hard_link:
            link = MakeLink(self._guest(path), self._guest(existing), hard=True, overwrite=self._overwrite)
            self._add(path, link)
            return Placed(Action.PENDING)
        if item.entry.type is not FileType.FILE:
            return self.symlink(path, item)
        copied = self.file(path, item)
        return Placed(copied.action, (*copied.losses, "hard link (made a copy)"), written=copied.written)

    def special(self, path: bytes, item: Item) -> Placed:
        """See the port: none is made, no agent has a word for them."""
        return Placed(Action.LEFT_OUT, (f"{item.entry.type.value} (its agent cannot make it)",))

    def finish(self) -> Sequence[Problem]:
        """See the port. ``close`` makes it durable."""
        self._apply()
        untold = self._failures - len(self._problems)
        if untold:
            self._problems.append(Problem(b"", FileNotRestored.code, f"{untold} more entries could not be placed"))
        return tuple(self._problems)

    def close(self) -> None:
        """What waits for its name is given up."""
        self._waiting.clear()
        self._files.close()

    def _guest(self, path: bytes) -> bytes:
        return self._files.root.rstrip(b"/") + b"/" + path

    def _there(self, path: bytes) -> GuestFile | None:
        """What is under the name in the guest, as it was when its directory was first looked into."""
        above, _, name = path.rpartition(b"/")
        level = self._levels[-1] if self._levels else self._root
        if level.path != above:
            raise FileNotRestored(shown(path), "the directory above it is not there")
        if level.there is None:
            self._apply()  # the directory itself may be waiting
            try:
                level.there = self._files.list_directory(self._guest(above) if above else self._files.root) or {}
            except GuestRefused as error:
                raise FileNotRestored(shown(path), error.message, hint=error.hint) from error
            except _OVER as error:
                raise TargetFailed(f"guest {self._files.machine}", error.message, hint=error.hint) from error
        return level.there.get(name)

    def _same(self, there: GuestFile, entry: FileEntry) -> bool:
        step = self._files.time_step_ns
        return (
            there.kind is GuestFileKind.FILE
            and there.size == entry.size
            and there.mtime_ns // step == entry.mtime_ns // step
        )

    def _check_taken(self, path: bytes, there: GuestFile) -> None:
        if there.kind is GuestFileKind.DIRECTORY:
            raise FileNotRestored(shown(path), "in the guest a directory is in its place")
        if not self._overwrite:
            raise FileNotRestored(shown(path), f"in the guest another {there.kind.value} is there", hint=OVERWRITE_HINT)

    def _add(self, path: bytes, action: GuestAction) -> None:
        self._waiting.append((path, action))
        if len(self._waiting) >= BATCH or self._staged >= BATCH_BYTES:
            self._apply()

    def _apply(self) -> None:
        if not self._waiting:
            return
        batch, self._waiting, self._staged = self._waiting, [], 0
        try:
            outcomes = self._files.apply([action for _, action in batch])
        except (GuestRefused, *_OVER) as error:
            raise TargetFailed(f"guest {self._files.machine}", error.message, hint=error.hint) from error
        for (path, _), outcome in zip(batch, outcomes, strict=True):
            self.late_losses.update(outcome.lost)
            if outcome.problem:
                self._failed(path, outcome.problem)

    def _failed(self, path: bytes, why: str) -> None:
        self._failures += 1
        if len(self._problems) < PROBLEMS_KEPT:
            self._problems.append(Problem(path, FileNotRestored.code, FileNotRestored(shown(path), why).message))


def _attributes(entry: FileEntry) -> GuestAttributes:
    return GuestAttributes(entry.mode & 0o7777, entry.uid, entry.gid, entry.mtime_ns)


def _attribute_losses(item: Item) -> tuple[str, ...]:
    """No agent sets extended attributes, and access rules (ACL) are such."""
    losses: list[str] = []
    return tuple([f"extended attribute {shown(name)}" for name in xattrs_of(item, losses)] + losses)
