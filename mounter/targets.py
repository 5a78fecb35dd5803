"""Where restored files go: one port for a directory here, an archive, and a guest that is running.

The traversal (``tree.py``) walks the restore point as the guest sees it and hands every entry over once, in this order::

    directory("etc")                      what is in it may come now
        file("etc/hosts")
        symlink("etc/mtab")
        directory("etc/ssh")
            ...
        leave_directory("etc/ssh")        nothing more comes in it: now its mode, owner and times are set
    leave_directory("etc")
    finish()                              once, when everything was handed over

Not one list of all entries exists anywhere: what a target keeps has to be bounded by the depth of the tree, or spilled.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mounter.ports import FileEntry, shown
from proxy.ports import Closing


class Action(StrEnum):
    """What a target did with one entry. ``UNCHANGED``: it was there, whole and the same (an earlier run's, or older);
    ``KEPT``: something else is there, and the policy says that it stays; ``LEFT_OUT``: the target does not take such
    entries, and ``losses`` says why; ``PENDING``: taken, and ``finish`` tells if it failed."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    LEFT_OUT = "left-out"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Placed:
    """``losses``: what the target could not hold, each in words that are the same for all entries that lose the same
    ("owner", "extended attribute security.selinux"), so that they can be counted. ``path``: relative to the target, where
    it is now, when that is not where it was to go. ``written``: bytes of content that were sent, holes left out."""

    action: Action = Action.WRITTEN
    losses: tuple[str, ...] = ()
    path: bytes | None = None
    written: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry that was not restored, or not whole. ``path``: as the guest names it, or relative to the target where the
    target tells it; ``code``: of the error (``proxy.errors``)."""

    path: bytes
    code: str
    message: str

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.message}"


class Item(Protocol):
    """One entry on its way, read when it is asked for. Valid only until the call that it was given to returns."""

    @property
    def entry(self) -> FileEntry:
        """Its facts. ``entry.path`` is within its volume: not where it goes."""
        ...

    def pieces(self) -> Iterator[bytes]:
        """A regular file's content from its beginning: exactly ``entry.size`` bytes, or an error of ``proxy.errors`` on the
        way (also for a source that ends short or goes on too long). May be called again, to read it twice."""
        ...

    def xattrs(self) -> Mapping[bytes, bytes]:
        """As ``GuestFilesystem.xattrs``. A call to the guest's file system: ask only if you can keep them."""
        ...


class FileTarget(Closing, Protocol):
    """Takes restored entries. Called from one thread. ``path``: relative, parts separated by ``/``; the traversal has
    checked that none of them is empty, ``.``, ``..`` or holds a NUL; empty for the target itself, when the root of a volume
    is restored into it (only ``directory`` and ``leave_directory`` get it). Directories above come first.

    A file appears whole under its name, or not at all; where the target cannot do that (a stream), it must not look whole.
    Errors: what ``item`` raises passes through, after the target has tidied up; ``FileNotRestored`` when this one entry
    cannot be placed and the next may (name taken, not permitted, name impossible there); ``TargetFailed`` when no further
    entry can (disk full, agent gone, nobody reads the stream). Metadata that cannot be set is a loss, not an error.
    """

    def directory(self, path: bytes, item: Item) -> Placed:
        """Make it, or use the one that is there; entries in it must be writable now, whatever its mode will be."""
        ...

    def leave_directory(self, path: bytes, item: Item) -> Placed:
        """Nothing more comes in it. Called for every directory that ``directory`` took, the deepest first."""
        ...

    def file(self, path: bytes, item: Item) -> Placed:
        """A regular file. What is there already, whole and the same (type, size, mtime), need not be sent again."""
        ...

    def symlink(self, path: bytes, item: Item) -> Placed:
        """``item.entry.link_target``, as it stands: never followed, neither now nor by later calls."""
        ...

    def hard_link(self, path: bytes, item: Item, existing: bytes) -> Placed:
        """Another name of a file that this target took in this run at ``existing``. A target without hard links sends the
        content again and says so in ``losses``."""
        ...

    def special(self, path: bytes, item: Item) -> Placed:
        """Device, FIFO or socket: ``item.entry.type`` and ``.device``."""
        ...

    def finish(self) -> Sequence[Problem]:
        """Everything was handed over: make it durable and publish it. Entries that failed after they were ``PENDING``.

        ``close`` without ``finish`` gives up: what is half done is removed or made to look so; whole files stay.
        """
        ...
