"""Owner, mode, extended attributes and times of a restored entry, set on this host. What cannot be set is a loss.

The order matters: changing the owner clears set-id bits and capabilities, attributes of a user need a writable file, a list
of access rules (ACL) changes the mode, and everything changes the times. So: owner, attributes, mode, times.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mounter.ports import FileEntry, FileType, shown
from mounter.targets import Item
from proxy.errors import MountEnded, MountFailed

ACCESS_ACL = b"system.posix_acl_access"
CAPABILITY = b"security.capability"

# What a value that no system call takes raises: a guest may claim any number, and any name of an attribute.
_REFUSED = (OSError, OverflowError, ValueError)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What of it is wanted. ``owner``: numeric user and group. ``set_id``: bits and capabilities by which a program runs as
    somebody else; they are left out unless asked for, since the guest's programs have no business on this host."""

    owner: bool = True
    set_id: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Something on this host: an open file or directory (its descriptor), or a path below ``/proc/self/fd``, where ``link``
    says that its last part may be a symbolic link, which is then meant itself."""

    at: int | bytes
    link: bool = False

    @classmethod
    def link_in(cls, directory: int, name: bytes) -> "Place":
        """A symbolic link in an open directory."""
        return cls(b"/proc/self/fd/%d/%s" % (directory, name), link=True)

    @classmethod
    def opened_as_path(cls, descriptor: int) -> "Place":
        """What an ``O_PATH`` descriptor stands for: devices and the like, which must not be opened for real."""
        return cls(b"/proc/self/fd/%d" % descriptor)

    def chown(self, uid: int, gid: int) -> None:
        os.chown(self.at, uid, gid, follow_symlinks=not self.link)

    def chmod(self, mode: int) -> None:
        os.chmod(self.at, mode)  # noqa: PTH101  a descriptor, or bytes

    def set_times(self, mtime_ns: int) -> None:
        os.utime(self.at, ns=(mtime_ns, mtime_ns), follow_symlinks=not self.link)

    def set_attribute(self, name: bytes, value: bytes) -> None:
        os.setxattr(self.at, name, value, follow_symlinks=not self.link)

    def status(self) -> os.stat_result:
        return os.stat(self.at, follow_symlinks=not self.link)  # noqa: PTH116  a descriptor, or bytes


def apply(place: Place, item: Item, wanted: Attributes) -> tuple[str, ...]:
    """Give ``place`` all that is wanted of ``item``; returns what it could not be given."""
    entry = item.entry
    losses: list[str] = []
    if wanted.owner:
        _attempt(losses, "owner", lambda: _own(place, entry))
    rules = False
    for name, value in xattrs_of(item, losses).items():
        if name == CAPABILITY and not wanted.set_id:
            losses.append("capabilities of the program (not asked for)")
            continue
        _attempt(losses, f"extended attribute {shown(name)}", partial(place.set_attribute, name, value))
        rules |= name == ACCESS_ACL
    mode = None
    if entry.type is not FileType.SYMLINK:
        if not rules and isinstance(place.at, int):
            _remove_inherited_rules(place.at)
        mode = _mode(entry, wanted, losses)
        _attempt(losses, "mode", partial(place.chmod, mode))
    _attempt(losses, "times", lambda: place.set_times(entry.mtime_ns))
    return (*losses, *_ignored(place.status(), entry, wanted, mode, losses))


def _ignored(
    now: os.stat_result, entry: FileEntry, wanted: Attributes, mode: int | None, told: Sequence[str]
) -> Iterator[str]:
    """Some file systems (NTFS, FAT) take what they cannot keep, and say nothing."""
    if wanted.owner and "owner" not in told and (now.st_uid, now.st_gid) != (entry.uid, entry.gid):
        yield "owner (the target's file system keeps none)"
    if mode is not None and "mode" not in told and now.st_mode & 0o7777 != mode:
        yield "mode (the target's file system keeps another)"
    if "times" not in told and now.st_mtime_ns != entry.mtime_ns:
        yield "times (the target's file system rounds them)"


def _attempt(losses: list[str], what: str, call: Callable[[], None]) -> None:
    try:
        call()
    except _REFUSED:
        losses.append(what)


def _mode(entry: FileEntry, wanted: Attributes, losses: list[str]) -> int:
    """Directories keep the bit by which their group is inherited: nothing runs by it."""
    mode = entry.mode & 0o7777
    risky = mode & (stat.S_ISUID | stat.S_ISGID) if entry.type is FileType.FILE else 0
    if risky and not wanted.set_id:
        losses.append("set-user-id or set-group-id bit (not asked for)")
        return mode & ~risky
    return mode


def xattrs_of(item: Item, losses: list[str]) -> Mapping[bytes, bytes]:
    """Attributes of an entry. Its content is worth more than they are: what cannot be read is a loss."""
    try:
        return item.xattrs()
    except MountEnded:
        raise
    except MountFailed:
        losses.append("extended attributes (they could not be read)")
        return {}


def _own(place: Place, entry: FileEntry) -> None:
    now = place.status()
    if (now.st_uid, now.st_gid) != (entry.uid, entry.gid):
        place.chown(entry.uid, entry.gid)


def _remove_inherited_rules(descriptor: int) -> None:
    """A directory that was there before may give its own rules (ACL) to what is made in it; the guest's file had none."""
    try:
        os.removexattr(descriptor, ACCESS_ACL)
    except OSError:  # it has none, which is the rule
        return
