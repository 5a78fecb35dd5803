"""The port ``GuestFiles``: what is done to files inside a running guest, and the values that say it.

Paths are bytes, absolute, as the guest names them: ``b"/data/x"``, ``b"C:/x"``. Times in nanoseconds since 1970 UTC.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from proxy.errors import GuestRefused
from proxy.model import MachineId
from proxy.ports import Closing


class GuestFileKind(StrEnum):
    """What is under a name. ``OTHER``: a device, a FIFO, a socket."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class GuestFile:
    """What is under a name in the guest now. ``mtime_ns``: as exact as ``GuestFiles.time_step_ns``."""

    kind: GuestFileKind
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class GuestAttributes:
    """``mode``: permission bits (``07777``). ``None``: leave it as the agent makes it."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Staged:
    """A file's whole content, on its way in or in the guest already, and under no name that anybody looks for. ``id`` is the
    adapter's own word for it; ``size`` in bytes."""

    id: str
    size: int


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Done, too, when a directory is there; a symbolic link to one is none. Only its owner may enter it until
    ``SetAttributes`` says otherwise. The directory that it is to lie in must exist."""

    path: bytes


@dataclass(frozen=True, slots=True)
class PlaceFile:
    """Give staged content its name, in one step, with its attributes set before. What is there is replaced only with
    ``overwrite``, and never a directory. A file whose owner could not be set loses set-user-id and set-group-id."""

    path: bytes
    staged: Staged
    attributes: GuestAttributes
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class MakeLink:
    """A symbolic link to ``target`` as it stands, or (``hard``) another name of the file at ``target``. Done, too, when it is
    there already; else as ``PlaceFile``. ``attributes``: of a symbolic link, owner and time alone."""

    path: bytes
    target: bytes
    hard: bool = False
    attributes: GuestAttributes = GuestAttributes()
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Of a directory, or of a file that is there; a symbolic link is not followed."""

    path: bytes
    attributes: GuestAttributes


GuestAction = MakeDirectory | PlaceFile | MakeLink | SetAttributes


@dataclass(frozen=True, slots=True)
class Outcome:
    """``problem``: why it was not done, in the guest's words; empty when it was. ``exists``: because something is there.
    ``lost``: what could not be set though it was done (``OWNER``, ``MODE``, ``TIME``)."""

    problem: str = ""
    exists: bool = False
    lost: tuple[str, ...] = ()


OWNER, MODE, TIME = "owner", "mode", "times"
EXISTS = "something is there already"
"""How ``Outcome.problem`` says it."""


class GuestFiles(Closing, Protocol):
    """Files put into one running guest through its hypervisor's agent, below ``root``, which is made where it is missing.
    Called from one thread. ``close`` removes what was staged and has no name yet; whole files stay.

    Any call may raise ``GuestAgentUnavailable``: then nothing further can be done, and a new ``GuestFiles`` goes on from what
    is there. What an agent cannot do is said by ``can_…`` beforehand, never tried out; asked for all the same, it is ``lost``
    (attributes) or a ``problem`` (links, names).
    """

    machine: MachineId
    root: bytes
    system: str
    """``linux``, ``windows``, …"""
    can_set_mode: bool
    can_set_owner: bool
    can_set_times: bool
    can_symlink: bool
    can_hard_link: bool
    can_take_any_name: bool
    """Also names that are not UTF-8."""
    time_step_ns: int
    """How exactly ``list_directory`` tells times: 1 for nanoseconds."""

    def free_space(self) -> int | None:
        """Bytes free where ``root`` is, as it was when the agent was first asked; ``None`` if it does not tell."""
        ...

    def list_directory(self, path: bytes) -> Mapping[bytes, GuestFile] | None:
        """Name -> what it is; ``None`` when there is no such directory. Raises ``GuestRefused``."""
        ...

    def stage(self, size: int, pieces: Iterable[bytes]) -> Staged:
        """Take a file's content over, in bounded memory however large it is; what ``pieces`` raises passes through and
        nothing stays. Raises ``GuestRefused`` (no space, not permitted), and where ``pieces`` are not ``size`` bytes."""
        ...

    def apply(self, actions: Sequence[GuestAction]) -> Sequence[Outcome]:
        """Do them in this order, one outcome for each: one that fails keeps no other from being tried. Many at once cost
        little more than one: an agent takes longer to begin than to do. Content that could not be placed is removed."""
        ...


def counted(name: str, size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces, as long as they are ``size`` bytes in all, else ``GuestRefused``. ``name``: the machine's."""
    seen = 0
    for piece in pieces:
        seen += len(piece)
        if seen > size:
            break
        yield piece
    if seen != size:
        raise GuestRefused(name, "a file", f"its content is not the {size} bytes that were announced")
