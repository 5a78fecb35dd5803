"""Files put into a guest through VMware Tools: the port ``GuestFiles`` over vSphere's ``GuestFileManager``.

::

    stage   InitiateFileTransferToGuest gives an address at the machine's host, the content is PUT there
                                                      root/.lanfree-push-<id>/1
    apply   ChangeFileAttributesInGuest, then MoveFileInGuest: a file has its name when it is whole

The call names a user of the guest with his password; both go to vCenter over the pinned connection, and neither is in any
error. The address carries a ticket and is in none either. The host must show the certificate that vCenter knows of it.

Every call is one question to vCenter, which asks the host, which asks the guest: some hundred milliseconds each on a busy
site. "vim.vm.guest.FileManager" of the vSphere Web Services API reference; privileges: VirtualMachine.GuestOperations.Query
and .Modify on the machine.
"""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from proxy import guest_files as port
from proxy.closing import Closeable
from proxy.errors import GuestAgentUnavailable, GuestRefused, HypervisorError, LanfreeError
from proxy.hypervisor.vsphere import collector, inventory
from proxy.hypervisor.vsphere.connection import Vcenter, read_password, vim
from proxy.hypervisor.vsphere.faults import Refusal, Refused, moid
from proxy.hypervisor.vsphere.guest_transfer import put
from proxy.model import MachineId

STAGING = ".lanfree-push-"

# Seconds. A push may last two days, but something is written into its directory all the time.
STALE = 86_400

# Names a question: the guest's answer goes through the host in one message, and large ones are refused.
LISTED = 500

# vSphere's API has 32 bits with a sign for users and groups; directories of large companies give out higher numbers.
LARGEST_ID = 2**31 - 1

SECOND = 10**9

# The end of the year 9999, behind which SOAP's dates (and Python's) have no year; what lies before 1970 is nobody's time.
LATEST = 253_402_300_799 * SECOND
SET_ID = 0o6000
PRIVATE = port.GuestAttributes(mode=0o700)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What SOAP cannot carry: XML 1.0 has no control characters but these, and makes a newline of a carriage return.
_UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]")

_UNAVAILABLE = {
    "GuestOperationsUnavailable": "VMware Tools do not answer",
    "GuestComponentsOutOfDate": "VMware Tools are too old",
    "OperationDisabledByGuest": "the guest's configuration of VMware Tools forbids it (tools.conf, [guestoperations])",
    "InvalidPowerState": "the machine does not run",
}
_LOGIN = {"InvalidGuestLogin", "GuestAuthenticationChallenge", "TooManyGuestLogons"}

_KINDS = {
    "file": port.GuestFileKind.FILE,
    "directory": port.GuestFileKind.DIRECTORY,
    "symlink": port.GuestFileKind.SYMLINK,
}
_FACTS = (
    "name",
    "runtime.host",
    "runtime.powerState",
    "guest.toolsRunningStatus",
    "guest.guestFamily",
    "guest.disk",
)


class VsphereGuestFiles(Closeable):
    """See the port. ``user``, ``password_file``: of the guest. Raises ``MachineNotFound``, ``GuestAgentUnavailable``,
    ``GuestRefused``, ``ConfigurationError``."""

    can_symlink = False
    can_hard_link = False
    can_take_any_name = False
    time_step_ns = SECOND

    def __init__(self, vcenter: Vcenter, machine: MachineId, root: bytes, user: str, password_file: Path) -> None:
        self.machine = machine
        self._vcenter = vcenter
        self._reference = inventory.find_machine(vcenter, machine)
        facts = collector.read_one(vcenter, self._reference, *_FACTS)
        self._name = str(facts.get("name"))
        self._host = facts.get("runtime.host")
        self._open = False
        if str(facts.get("runtime.powerState")) != "poweredOn":
            raise GuestAgentUnavailable(self._name, "the machine does not run")
        if str(facts.get("guest.toolsRunningStatus")) != "guestToolsRunning":
            raise GuestAgentUnavailable(self._name, "VMware Tools do not run")
        self.system = "windows" if str(facts.get("guest.guestFamily")) == "windowsGuest" else "linux"
        self.can_set_mode = self.can_set_owner = self.system != "windows"
        self.can_set_times = True
        self._disks = facts.get("guest.disk") or ()
        password = read_password(f"guest {self._name}", password_file)
        self._login = vim.vm.guest.NamePasswordAuthentication(
            username=user, password=password, interactiveSession=False
        )
        self._files = vcenter.object(vim.vm.guest.FileManager, _file_manager(vcenter))
        self.root = self._checked_root(root)
        self._staging = self.root.rstrip(b"/") + b"/" + STAGING.encode() + secrets.token_hex(6).encode()
        self._number = 0
        self._prepare()

    def _checked_root(self, root: bytes) -> bytes:
        absolute = rb"[A-Za-z]:[/\\].*" if self.system == "windows" else rb"/.*"
        if not re.fullmatch(absolute, root, re.DOTALL):
            raise GuestRefused(
                self._name, root.decode(errors="replace"), f"it is no absolute path of a {self.system} guest"
            )
        return root.rstrip(b"/\\") or root

    def _prepare(self) -> None:
        with suppress(_ExistsError):
            self._make_directory(self.root, parents=True)
        self._make_directory(self._staging)
        self._open = True
        try:
            if self.can_set_mode:
                self._set(self._staging, PRIVATE)
        except BaseException:  # nobody has it yet who could close it
            self.close()
            raise
        self._sweep()

    def _sweep(self) -> None:
        """Take away what pushes left here that died: by the guest's own clock, older than anything that is still sent."""
        found: Mapping[bytes, port.GuestFile] = {}
        with suppress(LanfreeError):
            found = self._listed(self.root, f"^{re.escape(STAGING)}.*$") or {}
        ours = found.get(self._staging.rpartition(b"/")[2])
        if ours is None:
            return
        for name, one in found.items():
            if one.kind is port.GuestFileKind.DIRECTORY and one.mtime_ns + STALE * SECOND < ours.mtime_ns:
                place = self.root.rstrip(b"/") + b"/" + name
                with suppress(LanfreeError, _ExistsError):
                    self._asked(place, "DeleteDirectory", self._text(place), True)

    def free_space(self) -> int | None:
        """See the port: what VMware Tools told last of the file system that the root lies in."""
        root = self._text(self.root).replace("\\", "/").lower()
        found = ""
        free = None
        for disk in self._disks:
            place = str(disk.diskPath or "").replace("\\", "/").lower()
            if len(place) > len(found) and f"{root}/".startswith(place.rstrip("/") + "/"):
                found, free = place, int(disk.freeSpace)
        return free

    def list_directory(self, path: bytes) -> Mapping[bytes, port.GuestFile] | None:
        """See the port."""
        return self._listed(path)

    def stage(self, size: int, pieces: Iterable[bytes]) -> port.Staged:
        """See the port."""
        self._number += 1
        place = self._staging + b"/%d" % self._number
        kind = vim.vm.guest.FileManager
        attributes = (
            kind.WindowsFileAttributes() if self.system == "windows" else kind.PosixFileAttributes(permissions=0o600)
        )
        url = self._asked(place, "InitiateFileTransferToGuest", self._text(place), attributes, size, True)
        try:
            put(self._vcenter, self._host, self._name, url=str(url), size=size, pieces=pieces)
        except BaseException:
            with suppress(LanfreeError, _ExistsError):
                self._asked(place, "DeleteFile", self._text(place))
            raise
        return port.Staged(str(self._number), size)

    def apply(self, actions: Sequence[port.GuestAction]) -> Sequence[port.Outcome]:
        """See the port. One after the other: vSphere has no call for many."""
        return [self._tried(action) for action in actions]

    def close(self) -> None:
        """See the port."""
        if self._open:
            self._open = False
            with suppress(LanfreeError, _ExistsError):
                self._asked(self._staging, "DeleteDirectory", self._text(self._staging), True)

    # -- actions -------------------------------------------------------------------------------------------------

    def _tried(self, action: port.GuestAction) -> port.Outcome:
        try:
            match action:
                case port.MakeDirectory():
                    return self._directory(action.path)
                case port.PlaceFile():
                    return self._placed(action)
                case port.SetAttributes():
                    return port.Outcome(lost=self._set(action.path, action.attributes))
                case port.MakeLink():
                    return port.Outcome("VMware Tools make no links")
        except _ExistsError:
            return port.Outcome(port.EXISTS, exists=True)
        except GuestRefused as error:
            return port.Outcome(error.why)

    def _directory(self, path: bytes) -> port.Outcome:
        try:
            self._make_directory(path)
        except _ExistsError:
            kind = self._kind(path)
            return (
                port.Outcome()
                if kind is port.GuestFileKind.DIRECTORY
                else port.Outcome(f"a {kind or 'file'} is in its place")
            )
        if self.can_set_mode:
            self._set(path, PRIVATE)
        return port.Outcome()

    def _placed(self, action: port.PlaceFile) -> port.Outcome:
        place = self._staging + b"/" + action.staged.id.encode()
        try:
            target = self._text(action.path)
            if action.overwrite and self._kind(action.path) is port.GuestFileKind.DIRECTORY:
                raise GuestRefused(self._name, target, "a directory is in its place")
            lost = self._set(place, action.attributes)
            self._asked(action.path, "MoveFile", self._text(place), target, action.overwrite)
        except BaseException:
            with suppress(LanfreeError, _ExistsError):
                self._asked(place, "DeleteFile", self._text(place))
            raise
        return port.Outcome(lost=lost)

    def _make_directory(self, path: bytes, *, parents: bool = False) -> None:
        self._asked(path, "MakeDirectory", self._text(path), parents)

    def _set(self, path: bytes, wanted: port.GuestAttributes) -> tuple[str, ...]:
        """What could not be set. Raises ``GuestRefused`` for another reason than that the guest's user may not."""
        if wanted.mtime_ns is not None and not 0 <= wanted.mtime_ns <= LATEST:
            return (port.TIME, *self._set(path, replace(wanted, mtime_ns=None)))
        if self.system == "windows":
            never = tuple(
                what for what, value in ((port.OWNER, wanted.uid), (port.MODE, wanted.mode)) if value is not None
            )
            return never + self._set_what_may_be(path, port.GuestAttributes(mtime_ns=wanted.mtime_ns), (port.TIME,))
        if wanted.uid is None and wanted.gid is None:
            return self._set_what_may_be(path, wanted, (port.MODE, port.TIME))
        if max(wanted.uid or 0, wanted.gid or 0) <= LARGEST_ID and not self._set_what_may_be(
            path, wanted, (port.OWNER,)
        ):
            return ()
        mode = None if wanted.mode is None else wanted.mode & ~SET_ID
        return (
            port.OWNER,
            *self._set_what_may_be(path, port.GuestAttributes(mode, mtime_ns=wanted.mtime_ns), (port.MODE, port.TIME)),
        )

    def _set_what_may_be(self, path: bytes, wanted: port.GuestAttributes, lost: tuple[str, ...]) -> tuple[str, ...]:
        """``lost``: what it means when the guest's user is not allowed to."""
        if wanted == port.GuestAttributes():
            return ()
        try:
            self._asked(path, "ChangeFileAttributes", self._text(path), _attributes(wanted, self.system))
        except _DeniedError:
            return lost
        return ()

    def _kind(self, path: bytes) -> port.GuestFileKind | None:
        """What is under a name, links not followed."""
        above, _, name = path.rpartition(b"/")
        found = self._listed(above or b"/", f"^{re.escape(self._text(name))}$") or {}
        return found[name].kind if name in found else None

    def _listed(self, path: bytes, pattern: str | None = None) -> dict[bytes, port.GuestFile] | None:
        found: dict[bytes, port.GuestFile] = {}
        index = 0
        while True:
            try:
                told = self._asked(path, "ListFiles", self._text(path), index, LISTED, pattern)
            except _MissingError:
                return None
            for one in told.files or ():
                name = re.split(r"[/\\]" if self.system == "windows" else "/", str(one.path).rstrip("/"))[-1]
                if name not in {"", ".", ".."}:
                    found[name.encode()] = _guest_file(one)
            index += len(told.files or ())
            if not told.remaining or not told.files:
                return found

    # -- the way to the guest ------------------------------------------------------------------------------------

    def _text(self, path: bytes) -> str:
        """As vSphere takes it. Raises ``GuestRefused``."""
        try:
            text = path.decode()
        except UnicodeDecodeError:
            raise GuestRefused(self._name, path.decode(errors="replace"), "its name is not UTF-8") from None
        if _UNSPEAKABLE.search(text):
            raise GuestRefused(self._name, ascii(text), "its name has characters that vSphere's API cannot carry")
        return text.replace("/", "\\") if self.system == "windows" else text

    def _asked(self, path: bytes, method: str, *arguments: Any) -> Any:
        """One call. Raises ``GuestRefused``, ``GuestAgentUnavailable``, and the three errors below."""
        try:
            return getattr(self._files, method)(self._reference, self._login, *arguments)
        except Refused as error:
            raise self._told(error, path.decode(errors="backslashreplace")) from None

    def _told(self, error: Refused, what: str) -> Exception:
        if error.fault in _UNAVAILABLE:
            return GuestAgentUnavailable(self._name, _UNAVAILABLE[error.fault])
        if error.refusal is Refusal.NO_PERMISSION:
            hint = "the role needs VirtualMachine.GuestOperations.Query and .Modify on the machine"
            return HypervisorError(f"guest files of {self._name}", error.why, hint=hint)
        if error.fault in _LOGIN:
            hint = "put the right password of that user of the guest into the file; a domain user is DOMAIN\\USER"
            return GuestAgentUnavailable(self._name, f"it refuses user {self._login.username}", hint=hint)
        if error.refusal is Refusal.NAME_TAKEN:
            return _ExistsError()
        if error.fault == "GuestPermissionDenied":
            return _DeniedError(self._name, what, f"user {self._login.username} may not")
        if error.refusal is Refusal.FILE_MISSING:
            return _MissingError(self._name, what, "no such file or directory")
        if error.refusal in (Refusal.FILE, Refusal.ARGUMENT, Refusal.NO_SPACE, Refusal.FILE_LOCKED):
            return GuestRefused(self._name, what, error.why)
        return GuestAgentUnavailable(self._name, error.why, hint=error.hint)


class _ExistsError(Exception):
    """Something has that name."""


class _DeniedError(GuestRefused):
    """The guest's user may not."""


class _MissingError(GuestRefused):
    """No such file or directory."""


def _file_manager(vcenter: Vcenter) -> str:
    """Its id. Raises ``Refused``."""
    operations = vcenter.content.guestOperationsManager
    found = collector.read_one(vcenter, operations, "fileManager").get("fileManager")
    return moid(found)


def _attributes(wanted: port.GuestAttributes, system: str) -> Any:
    moment = None if wanted.mtime_ns is None else _EPOCH + timedelta(microseconds=wanted.mtime_ns // 1000)
    if system == "windows":
        return vim.vm.guest.FileManager.WindowsFileAttributes(modificationTime=moment)
    return vim.vm.guest.FileManager.PosixFileAttributes(
        ownerId=wanted.uid, groupId=wanted.gid, permissions=wanted.mode, modificationTime=moment
    )


def _guest_file(one: Any) -> port.GuestFile:
    moment = one.attributes.modificationTime
    seconds = 0 if moment is None else (moment - _EPOCH) // timedelta(seconds=1)
    return port.GuestFile(_KINDS.get(str(one.type), port.GuestFileKind.OTHER), int(one.size), seconds * SECOND)
