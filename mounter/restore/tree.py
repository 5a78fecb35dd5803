"""Restore files of a restore point: one traversal for one file, a folder, whole volumes, into any ``FileTarget``.

Depth first, as the guest sees it: a volume that is mounted in a directory is entered there. Memory holds one listing a
level, never the list of everything. One file that cannot be read or placed is told and does not stop the others.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mounter.ports import FileEntry, FileType, Volume, shown
from mounter.restore.hard_links import HardLinks
from mounter.restore.selection import Chosen, chosen_of, harmless, joined, mountpoints, unreadable
from mounter.targets import Action, FileTarget, Placed, Problem
from proxy.errors import (
    Cancelled,
    FileNotRestored,
    GuestFileNotFound,
    IntegrityError,
    LanfreeError,
    MountEnded,
    MountFailed,
)

# Problems that are kept word by word; all are counted. A volume of a million unreadable files must not fill the memory.
PROBLEMS_KEPT = 1000

# Kinds of losses that are told apart: names of attributes are the guest's.
LOSSES_KEPT = 200

# No tree that people use is deeper; a damaged directory that contains itself is. Half of the usual limit of open files,
# since targets hold a directory open a level.
DEEPEST = 500

# The inode of every btrfs subvolume's root: a snapshot inside of its original looks like a directory within itself.
BTRFS_ROOT = 256


class RestorePointFiles(Protocol):
    """What a restore reads from: a ``MountSession``. Paths are guest paths."""

    def volumes(self) -> Sequence[Volume]: ...
    def locate(self, path: bytes) -> tuple[Volume, bytes]: ...
    def entry(self, path: bytes) -> FileEntry: ...
    def list_directory(self, path: bytes) -> Sequence[FileEntry]: ...
    def read(self, path: bytes) -> Iterator[bytes]: ...
    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]: ...


@dataclass(frozen=True, slots=True)
class Options:
    """``full_paths``: keep the guest's path below the target, not only the last name. ``one_file_system``: volumes mounted
    below are left out; the directories that they cover are there, empty."""

    full_paths: bool = False
    one_file_system: bool = False


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """So far. ``content``: bytes of files, as the guest counts it. ``path``: what is under way, as the guest names it."""

    entries: int
    content: int
    path: bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """What the target could not hold, of how many entries, and one of them as an example."""

    what: str
    count: int
    example: bytes


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """``entries``: of every kind of action, how many. ``content``: bytes that are there now, as the guest counts them;
    ``written``: bytes that were sent for it. ``problems``: the first ones; ``failed``: how many there were."""

    entries: Mapping[str, int]
    content: int
    written: int
    failed: int
    problems: tuple[Problem, ...]
    losses: tuple[Loss, ...]

    @property
    def complete(self) -> bool:
        """Everything that was asked for is there, as far as the target can hold it, or stays as the policy wants it."""
        return not self.failed


def restore_files(
    session: RestorePointFiles,
    paths: Sequence[bytes],
    target: FileTarget,
    *,
    options: Options = Options(),
    progress: Callable[[RestoreProgress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    ending: Callable[[RestoreReport], None] = lambda _: None,
) -> RestoreReport:
    """Restore guest paths with all that is below them; no paths: everything that can be read. Then finish the target.

    The target stays open. ``ending``: called when everything was handed over, before the target is finished, with the report
    as it is then; it may add to the target. Raises ``RestoreRefused`` before anything is written when two paths would go to
    one place, ``Cancelled``, ``TargetFailed``, ``MountEnded`` and what the repository raises when it is not there: then the
    target is not finished, and a note tells how far it came. Problems with single entries are in the report only.
    """
    volumes = session.volumes()
    chosen = chosen_of(paths, volumes, full=options.full_paths)
    with HardLinks() as links:
        run = _Restore(session, target, options, links, progress=progress, cancelled=cancelled)
        try:
            for volume in unreadable(volumes) if not paths else ():
                error = MountFailed(f"volume {volume.device}", volume.problem or "")
                run.tally.failed_because(volume.guest_path(b"/"), error)
            for one in chosen:
                run.choose(one)
            run.leave_above(0)
            ending(run.tally.report())
            for problem in target.finish():
                run.tally.failed(problem)
        except LanfreeError as error:
            error.add_note(f"{run.tally.entries} entries with {run.tally.content} bytes were restored until then")
            raise
    return run.tally.report()


@dataclass(slots=True)
class _Tally:
    actions: Counter[str] = field(default_factory=Counter)
    content: int = 0
    written: int = 0
    failures: int = 0
    problems: list[Problem] = field(default_factory=list)
    losses: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        return self.actions.total()

    def placed(self, guest: bytes, entry: FileEntry, done: Placed, *, again: bool = False) -> None:
        """``again``: the second call for a directory, which is one entry only."""
        for loss in done.losses:
            what = loss if loss in self.losses or len(self.losses) < LOSSES_KEPT else "more that is not told by name"
            count, example = self.losses.get(what, (0, guest))
            self.losses[what] = (count + 1, example)
        if again:
            return
        self.actions[done.action.value] += 1
        self.written += done.written
        if entry.type is FileType.FILE and done.action not in (Action.KEPT, Action.LEFT_OUT):
            self.content += entry.size

    def failed_because(self, guest: bytes, error: LanfreeError) -> None:
        self.failed(Problem(guest, error.code, error.message))

    def failed(self, problem: Problem) -> None:
        self.failures += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)

    def report(self) -> RestoreReport:
        losses = tuple(Loss(what, count, example) for what, (count, example) in sorted(self.losses.items()))
        return RestoreReport(
            dict(self.actions), self.content, self.written, self.failures, tuple(self.problems), losses
        )


class _Item:
    """One entry, read from the session when the target asks; progress and cancelling between the pieces."""

    def __init__(self, run: "_Restore", guest: bytes, entry: FileEntry) -> None:
        self._run = run
        self.guest = guest
        self.entry = entry

    def pieces(self) -> Iterator[bytes]:
        done, size = 0, self.entry.size
        for piece in self._run.session.read(self.guest) if size else ():
            self._run.go_on(self.guest, done)
            done += len(piece)
            if done > size:
                raise MountFailed(shown(self.guest), f"more than its {size} bytes could be read")
            yield piece
        if done != size:
            raise MountFailed(shown(self.guest), f"{done} bytes could be read of {size}")

    def xattrs(self) -> Mapping[bytes, bytes]:
        return self._run.session.xattrs(self.guest)


@dataclass(slots=True)
class _Level:
    """A directory under way. ``left``: what is still to come from it, the next one last."""

    item: _Item
    path: bytes
    volume: Volume
    left: list[FileEntry]


class _Restore:
    def __init__(
        self,
        session: RestorePointFiles,
        target: FileTarget,
        options: Options,
        links: HardLinks,
        *,
        progress: Callable[[RestoreProgress], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self.session = session
        self.tally = _Tally()
        self._target = target
        self._options = options
        self._links = links
        self._progress = progress
        self._cancelled = cancelled
        self._mounted = mountpoints(session.volumes())
        self._above: list[_Level] = []

    def choose(self, one: Chosen) -> None:
        """One of the paths that were asked for, with the directories above it where those are wanted."""
        shared = 0
        while shared < min(len(self._above), len(one.above)) and self._above[shared].path == one.above[shared][1]:
            shared += 1
        self.leave_above(shared)
        for guest, path in one.above[shared:]:
            if not self._enter(guest, path, None, self._above):
                return
        stack: list[_Level] = []
        self._enter(one.guest, one.path, None, stack)
        while stack:
            top = stack[-1]
            if top.left:
                child = top.left.pop()
                self._enter(joined(top.item.guest, child.name), joined(top.path, child.name), child, stack)
            else:
                self._leave(stack.pop())

    def leave_above(self, kept: int) -> None:
        """Leave directories above chosen paths, but for the first ``kept``."""
        while len(self._above) > kept:
            self._leave(self._above.pop())

    def go_on(self, guest: bytes, done: int = 0) -> None:
        """Tell how far it is; raises ``Cancelled``."""
        if self._cancelled():
            raise Cancelled("the restore")
        self._progress(RestoreProgress(self.tally.entries, self.tally.content + done, guest))

    def _enter(self, guest: bytes, path: bytes, entry: FileEntry | None, stack: list[_Level]) -> bool:
        """Place one entry; a directory goes on the stack. Whether it was placed; why not is in the report."""
        self.go_on(guest)
        try:
            covered = entry is not None and guest in self._mounted
            if entry is None or (covered and not self._options.one_file_system):
                entry = self.session.entry(guest)
            item = _Item(self, guest, entry)
            if stack is self._above and entry.type is not FileType.DIRECTORY:
                raise FileNotRestored(shown(guest), "it is no directory here; name the path that it leads to")
            if entry.type is not FileType.DIRECTORY:
                self._place(item, path, stack[-1].volume if stack else self.session.locate(guest)[0])
                return True
            if len(stack) >= DEEPEST:
                raise FileNotRestored(shown(guest), f"it lies more than {DEEPEST} directories deep")
            self.tally.placed(guest, entry, self._target.directory(path, item))
        except MountEnded:
            raise
        except (MountFailed, GuestFileNotFound, FileNotRestored, IntegrityError) as error:
            self.tally.failed_because(guest, error)
            return False
        self._push(item, path, stack, listed=not (covered and self._options.one_file_system))
        return True

    def _push(self, item: _Item, path: bytes, stack: list[_Level], *, listed: bool) -> None:
        """What cannot be listed is told; the directory itself is there then, empty."""
        level = _Level(item, path, self.session.locate(item.guest)[0] if listed else stack[-1].volume, [])
        try:
            if listed and stack is not self._above:
                if self._contains_itself(level, stack):
                    raise FileNotRestored(shown(item.guest), "it is one of the directories above it")
                level.left = self._children(item.guest)
        except MountEnded:
            raise
        except (MountFailed, GuestFileNotFound, FileNotRestored, IntegrityError) as error:
            self.tally.failed_because(item.guest, error)
        stack.append(level)

    def _children(self, guest: bytes) -> list[FileEntry]:
        """Of a directory, the first one last; mount points that the volume itself has no directory for among them."""
        listed: dict[bytes, FileEntry] = {}
        for entry in self.session.list_directory(guest):
            if not harmless(entry.name):
                self._refused(guest, f"{shown(entry.path)!r} in it has a name that would lead elsewhere")
            elif entry.name in listed:
                self._refused(guest, f"{shown(entry.name)!r} is in it twice")
            else:
                listed[entry.name] = entry
        if not self._options.one_file_system:
            for place in self._mounted:
                above, _, name = place.rpartition(b"/")
                if (above or b"/") == guest and name not in listed:
                    listed[name] = FileEntry(b"/" + name, FileType.DIRECTORY, 0, 0o755, 0, 0, 0, 0, 0)
        return [listed[name] for name in sorted(listed, reverse=True)]

    def _refused(self, guest: bytes, why: str) -> None:
        self.tally.failed_because(guest, FileNotRestored(shown(guest), why))

    def _contains_itself(self, level: _Level, stack: Sequence[_Level]) -> bool:
        inode = level.item.entry.inode
        if inode == 0 or (level.volume.type == "btrfs" and inode == BTRFS_ROOT):
            return False
        return any(upper.item.entry.inode == inode and upper.volume.id == level.volume.id for upper in stack)

    def _place(self, item: _Item, path: bytes, volume: Volume) -> None:
        entry, target = item.entry, self._target
        first = self._links.first(volume.id, entry)
        if first is not None:
            self.tally.placed(item.guest, entry, target.hard_link(path, item, first))
            return
        match entry.type:
            case FileType.FILE:
                done = target.file(path, item)
            case FileType.SYMLINK:
                done = target.symlink(path, item)
            case FileType.OTHER:
                raise FileNotRestored(shown(item.guest), "its inode cannot be read, or is of no known kind")
            case _:
                done = target.special(path, item)
        self.tally.placed(item.guest, entry, done)
        if done.action in (Action.WRITTEN, Action.UNCHANGED, Action.PENDING):
            self._links.restored(volume.id, entry, done.path or path)

    def _leave(self, level: _Level) -> None:
        try:
            done = self._target.leave_directory(level.path, level.item)
            self.tally.placed(level.item.guest, level.item.entry, done, again=True)
        except MountEnded:
            raise
        except (MountFailed, GuestFileNotFound, FileNotRestored, IntegrityError) as error:
            self.tally.failed_because(level.item.guest, error)
