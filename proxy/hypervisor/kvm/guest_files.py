"""Files put into a Linux guest through qemu-guest-agent: the port ``GuestFiles`` over libvirt's ``qemuAgentCommand``.

::

    stage   small file ─┐ kept, then sent as one archive      root/.lanfree-push-<id>/bundle-1
            large file ─┴ guest-file-open, -write…, -close     root/.lanfree-push-<id>/2
    apply   list of actions, guest-exec of one constant script: attributes set, then renamed into place

What a message may hold. libvirt takes strings up to 4 MiB (``REMOTE_STRING_MAX``) and answers up to 10 MiB
(``QEMU_AGENT_MAX_RESPONSE``), the agent JSON up to 64 MiB; but a message that is larger than what the host's Unix socket to
QEMU buffers (208 KiB by default) arrived mutilated ("JSON parse error") or not at all (libvirt 9.0, QEMU 7.2: 175 kB always
arrived, 262 kB never). So content goes in pieces that stay well below.

Measured on the lab's guest (software emulation, two busy processors): 1.1 MB/s in pieces of 16 KiB, 2.0 of 64 KiB, 2.3 of
96 KiB; a question takes 9 ms, a program 90 ms to begin and end. Small files: 12 a second when their attributes are set by
programs for each, 42 when an archive brings them.
"""

import base64
import binascii
import secrets
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from types import MappingProxyType
from typing import Any

from proxy.closing import Closeable
from proxy.errors import FormatError, GuestAgentUnavailable, GuestRefused, LanfreeError
from proxy.guest_files import GuestAction, GuestAttributes, GuestFile, Outcome, PlaceFile, Staged, counted
from proxy.hypervisor.kvm import guest_script as script
from proxy.hypervisor.kvm.answers import Refusal, Refused
from proxy.hypervisor.kvm.connection import Domain
from proxy.model import PowerState
from proxy.units import KiB, MiB

# In base64 128 KiB: see the module's docstring. Half of it would cost a tenth of the speed, twice as much does not arrive.
PIECE = 96 * KiB

# Read back in pieces of this: answers are not limited as messages to the guest are.
READ = 256 * KiB

# Files up to this size are sent together: three questions of their own would take longer than their bytes. Larger ones would
# wait in memory, all of them up to WAITING.
SMALL = 64 * KiB
WAITING = 1 * MiB

# A file's beginning that tells whether it packs well, to how much of its size at least, and how hard to try: the agent takes
# some MB/s, a processor of the proxy packs tens at this level, and the guest unpacks faster than that.
SAMPLE, WORTH, LEVEL = 128 * KiB, 0.8, 3
GZIP = 31  # zlib's word for a gzip stream with the largest window

# Actions of one run of the script: its answer (an error may repeat a path of 4 KiB) has to stay below libvirt's 4 MiB.
ACTIONS = 400

# Seconds. A question takes milliseconds; a guest that swaps, or whose disk is slow, needs longer for a piece of a file.
ASK, WRITE = 10.0, 60.0

# Seconds for one run of the script: it copies what goes to another file system than its root's, maybe to a slow disk.
RUN = 1800.0
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.25

NEEDED = (
    "guest-exec",
    "guest-exec-status",
    "guest-file-open",
    "guest-file-write",
    "guest-file-read",
    "guest-file-close",
)

_GONE = (Refusal.NO_DOMAIN, Refusal.NOT_RUNNING, Refusal.AGENT_MISSING, Refusal.AGENT_SILENT)
_FORBIDDEN_HINT = (
    "let the guest's agent run them: in the guest, take them out of block-rpcs (blacklist) in /etc/qemu/qemu-ga.conf, or of "
    "BLACKLIST_RPC / FILTER_RPC_ARGS in /etc/sysconfig/qemu-ga, and restart qemu-guest-agent; or restore the files to a "
    "directory and copy them"
)


class KvmGuestFiles(Closeable):
    """See the port. ``name``: the machine's, for people. Raises ``GuestAgentUnavailable``, ``GuestRefused``."""

    can_set_mode = True
    can_set_times = True
    can_symlink = True
    can_hard_link = True
    can_take_any_name = True
    time_step_ns = script.SECOND
    system = "linux"

    def __init__(self, domain: Domain, name: str, root: bytes) -> None:
        self.machine = domain.machine
        self.root = root.rstrip(b"/") or b"/"
        self._agent = _Agent(domain, name)
        self._name = name
        self._staging = script.STAGING + secrets.token_hex(6)
        self._number = 0
        self._waiting: dict[str, bytes] = {}
        self._open = False
        if not root.startswith(b"/") or b"\0" in root:
            raise GuestRefused(name, _shown(root), "it is no absolute path of a Linux guest")
        try:
            self._root = self.root.decode()
        except UnicodeDecodeError:
            raise GuestRefused(name, _shown(root), "the directory's name is not UTF-8") from None
        self._agent.check()
        self._prepare()

    def _prepare(self) -> None:
        code, said, errors = self._agent.run(script.PREPARE, self._root, self._staging)
        if code == 3:
            raise GuestRefused(
                self._name, self._root, f"it runs {_shown(said.strip())}, and only Linux guests can be written to"
            )
        if code != 0:
            raise GuestRefused(self._name, self._root, _shown(errors.strip()) or f"exit code {code}")
        self._open = True
        words = said.split(b"\n")
        self._fractions = b"fraction" in words
        self._bundles = b"tar" in words
        self._packs = b"gzip" in words
        self._user = next((word[5:].decode() for word in words if word.startswith(b"user ")), "")
        self.can_set_owner = self._user.startswith("0:")
        self._free = script.free_bytes(said)

    def free_space(self) -> int | None:
        """See the port."""
        return self._free

    def list_directory(self, path: bytes) -> Mapping[bytes, GuestFile] | None:
        """See the port."""
        code, _, errors = self._agent.run(script.LOOK, self._place, script.escaped(path))
        if code == script.NO_DIRECTORY:
            return None
        if code != 0:
            raise GuestRefused(self._name, _shown(path), _shown(errors.strip()) or f"exit code {code}")
        return script.listing(self._agent.read(f"{self._place}/{script.LISTING}"))

    def stage(self, size: int, pieces: Iterable[bytes]) -> Staged:
        """See the port."""
        self._number += 1
        name = str(self._number)
        content = counted(self._name, size, pieces)
        if self._bundles and size <= SMALL:
            whole = b"".join(content)
            if sum(map(len, self._waiting.values())) + size > WAITING:
                self._send_waiting()
            self._waiting[name] = whole
            return Staged(name, size)
        place = f"{self._place}/{name}"
        beginning = b"".join(_first(content, SAMPLE)) if self._packs else b""
        if packs_well(beginning):
            self._agent.write(f"{place}.gz", _packed(chain([beginning], content)))
            self._unpack(f"{place}.gz")
        else:
            self._agent.write(place, chain([beginning], content))
        return Staged(name, size)

    def _unpack(self, place: str) -> None:
        code, _, errors = self._agent.run(script.UNPACK, place)
        if code != 0:
            with suppress(LanfreeError):
                self._agent.run('rm -f -- "$1" "${1%.gz}"', place)
            raise GuestRefused(self._name, "a file", _shown(errors.strip()) or f"gzip ends with {code}")

    def apply(self, actions: Sequence[GuestAction]) -> Sequence[Outcome]:
        """See the port."""
        found: list[Outcome] = []
        for start in range(0, len(actions), ACTIONS):
            found += self._apply(actions[start : start + ACTIONS])
        return found

    def _apply(self, actions: Sequence[GuestAction]) -> list[Outcome]:
        finished = {
            action.staged.id: action.attributes
            for action in actions
            if isinstance(action, PlaceFile)
            and action.staged.id in self._waiting
            and script.can_come_finished(action.attributes)
        }
        listed = b"".join(
            script.encoded(
                action,
                fractions=self._fractions,
                finished=isinstance(action, PlaceFile) and action.staged.id in finished,
            )
            for action in actions
        )
        if self._waiting:
            self._waiting[script.LIST] = listed
            self._send_waiting(finished)
        else:
            self._agent.write(f"{self._place}/{script.LIST}", [listed])
        code, said, errors = self._agent.run(script.APPLY, self._place, self._user)
        if code != 0:
            why = _shown(errors.strip()) or f"exit code {code}"
            raise GuestRefused(self._name, self._root, why, hint="is there space where the files go?")
        return script.outcomes(said, actions, finished)

    def close(self) -> None:
        """Removes the staging directory, and has the guest write out what it holds back."""
        if self._open:
            self._open = False
            with suppress(
                LanfreeError
            ):  # an agent that is gone: the next push into that root removes it in a day's time
                self._agent.run(script.REMOVE, self._root, self._staging)

    @property
    def _place(self) -> str:
        return f"{self._root.rstrip('/')}/{self._staging}"

    def _send_waiting(self, attributes: Mapping[str, GuestAttributes] = MappingProxyType({})) -> None:
        self._number += 1
        archive = script.bundle(self._waiting, attributes, fractions=self._fractions)
        self._waiting.clear()
        place = f"{self._place}/{script.BUNDLE}{self._number}"
        if self._packs:
            self._agent.write(f"{place}.gz", _packed([archive]))
        else:
            self._agent.write(place, [archive])


class _Agent:
    """A guest's agent: files written and read, scripts run. Raises ``GuestAgentUnavailable`` and ``GuestRefused``."""

    def __init__(self, domain: Domain, name: str) -> None:
        self._domain = domain
        self._name = name

    def check(self) -> None:
        """That it answers and may do what is needed, in a guest that we know how to work with."""
        try:
            power = self._domain.state().power
        except Refused as error:
            raise GuestAgentUnavailable(self._name, error.why) from None
        if power is not PowerState.RUNNING:
            raise GuestAgentUnavailable(self._name, f"the machine is {power.value}")
        told = self._ask("guest-info")
        enabled = {c.get("name") for c in told.get("supported_commands", ()) if c.get("enabled")}
        if missing := [command for command in NEEDED if command not in enabled]:
            if self._ask("guest-fsfreeze-status", text=True) == "frozen":
                hint = "a backup or somebody else holds its file systems still; try again in a moment"
                raise GuestAgentUnavailable(self._name, "the guest is frozen", hint=hint)
            raise GuestAgentUnavailable(self._name, f"it does not allow {', '.join(missing)}", hint=_FORBIDDEN_HINT)
        if "guest-get-osinfo" in enabled and self._ask("guest-get-osinfo").get("id") == "mswindows":
            raise GuestRefused(
                self._name,
                "files",
                "it runs Windows, and through qemu-guest-agent only Linux guests can be written to",
                hint="restore the files to a directory, and copy them over the network",
            )

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        """A new file, or one of ours that is written again. What ``pieces`` raises passes through."""
        handle = self._ask("guest-file-open", {"path": path, "mode": "w"}, what=path)
        try:
            for piece in _of_size(pieces, PIECE):
                self._write(handle, piece, path)
        except BaseException:
            with suppress(LanfreeError):
                self._ask("guest-file-close", {"handle": handle})
                self.run('rm -f -- "$1"', path)
            raise
        self._ask("guest-file-close", {"handle": handle}, what=path)

    def _write(self, handle: Any, piece: bytes, path: str) -> None:
        left = piece
        while left:
            content = base64.b64encode(left).decode()
            told = self._ask("guest-file-write", {"handle": handle, "buf-b64": content}, what=path, timeout=WRITE)
            count = told.get("count")
            if not isinstance(count, int) or not 0 < count <= len(left):
                raise GuestRefused(self._name, path, f"its agent says it wrote {count} of {len(left)} bytes")
            left = left[count:]

    def read(self, path: str) -> bytes:
        """A whole file of ours."""
        handle = self._ask("guest-file-open", {"path": path, "mode": "r"}, what=path)
        parts: list[bytes] = []
        try:
            while True:
                told = self._ask("guest-file-read", {"handle": handle, "count": READ}, what=path, timeout=WRITE)
                parts.append(_decoded(self._name, told.get("buf-b64", "")))
                if told.get("eof") or not parts[-1]:
                    return b"".join(parts)
        finally:
            with suppress(LanfreeError):
                self._ask("guest-file-close", {"handle": handle})

    def run(self, text: str, *arguments: str) -> tuple[int, bytes, bytes]:
        """A constant script with arguments, to its end: exit code, what it said, what went wrong."""
        argv = ["-c", text, "sh", *arguments]
        started = self._ask("guest-exec", {"path": "/bin/sh", "arg": argv, "capture-output": True}, what="/bin/sh")
        deadline, pause = time.monotonic() + RUN, FIRST_PAUSE
        while not (told := self._ask("guest-exec-status", {"pid": started.get("pid")})).get("exited"):
            if time.monotonic() > deadline:
                raise GuestAgentUnavailable(self._name, f"a program did not end in {RUN:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
        if told.get("out-truncated"):
            raise GuestRefused(self._name, "/bin/sh", "it said more than the agent keeps")
        code = told["exitcode"] if "exitcode" in told else 128 + int(told.get("signal", 0))
        said, errors = (_decoded(self._name, told.get(key, "")) for key in ("out-data", "err-data"))
        return int(code), said, errors

    def _ask(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        what: str = "",
        timeout: float = ASK,
        text: bool = False,
    ) -> Any:
        """The answer: an object for most, a number for ``guest-file-open``; a word where ``text`` is asked for."""
        try:
            told = self._domain.agent(command, arguments, timeout=timeout)
        except Refused as error:
            if error.refusal in _GONE:
                raise GuestAgentUnavailable(self._name, error.why) from None
            why = error.why.partition("error was ")[2] or error.why.rpartition(f"'{command}': ")[2] or error.why
            if "disabled" in why or "not allowed" in why or "has not been found" in why:
                hint = "a backup may hold the guest's file systems frozen: try again; else: " + _FORBIDDEN_HINT
                raise GuestAgentUnavailable(self._name, why, hint=hint) from None
            raise GuestRefused(self._name, what or command, why) from None
        if isinstance(told, str if text else int if command == "guest-file-open" else dict):
            return told
        raise FormatError(f"guest agent of {self._name}", f"answered {command} with {str(told)[:80]!r}")


def packs_well(beginning: bytes) -> bool:
    """Whether a file that begins so is worth packing: what is packed already only costs the guest time."""
    return len(zlib.compress(beginning, LEVEL)) < WORTH * len(beginning)


def _first(pieces: Iterator[bytes], length: int) -> Iterator[bytes]:
    """So many pieces that they have this length, or all."""
    seen = 0
    while seen < length and (piece := next(pieces, None)) is not None:
        seen += len(piece)
        yield piece


def _packed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """As gzip has it (RFC 1952)."""
    packer = zlib.compressobj(LEVEL, wbits=GZIP)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _of_size(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of this size, but for the last."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)


def _decoded(name: str, text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error:
        raise FormatError(f"guest agent of {name}", "its answer is no base64") from None


def _shown(text: bytes) -> str:
    decoded = text.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in decoded[:500])
