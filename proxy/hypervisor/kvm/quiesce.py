"""Bringing a guest to rest, proving that it was, and never leaving it frozen.

The proof. libvirt's QUIESCE says only that the agent froze file systems: the usual hook dispatcher drops the exit codes
of its scripts. So the guest's hook reports to us::

    proxy   writes the run id into          /run/lanfree/quiesce-request     (through the guest agent)
    guest   freeze: runs every application's script, then writes one JSON line into
                                            /run/lanfree/quiesce-result
            {"request": "<run id>", "ok": true, "apps": ["50-db.sh"], "failed": "", "exit": 0}
    proxy   reads it after the thaw; only an answer to *this* request counts

The thaw. A hook that hangs outlives every time-out: the agent runs it to its end and freezes the file systems *then*,
when nobody waits any more. So after a failed freeze the agent is asked until it says "thawed" (it answers in order, hence
only after that freeze), here for a while, then by a thread that the end of the command waits for, and after a crash of
the proxy by ``sweep``.
"""

import base64
import binascii
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from proxy.errors import HostUnreachable, LanfreeError, QuiesceFailed
from proxy.hypervisor.kvm.answers import Refusal, Refused
from proxy.hypervisor.kvm.connection import Domain
from proxy.hypervisor.kvm.records import Records
from proxy.model import Consistency, MachineId, PowerState, QuiescePolicy, Reason, ReasonCode, RunId, SnapshotRequest

REQUEST = "/run/lanfree/quiesce-request"
RESULT = "/run/lanfree/quiesce-result"

# The result is one short line; a guest is not trusted with more of our memory.
RESULT_LIMIT = 16384

# One question to the agent. It answers in milliseconds unless a hook runs, in which case waiting longer gains nothing.
ASK_TIMEOUT = 2.0

# After a snapshot that went well the guest is thawed already; this is only to see it.
THAW_PATIENCE = 10.0

# How long the watching thread goes on after snapshot() has given up. A hook that runs longer than this is for a person;
# the mark in the state directory stays, so that the next sweep looks again.
WATCH_SECONDS = 3600.0

# How long the end of a command waits for those threads. Hooks that flush a large database take a minute or two; who
# waits longer for a hook that never ends had better get the prompt back, the next sweep looks again.
CLOSE_SECONDS = 300.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How consistent a quiesced snapshot was proven to be, and why no better."""

    consistency: Consistency
    reason: Reason


@dataclass(frozen=True, slots=True)
class Frozen:
    """How the moment of a snapshot went. ``seconds``: upper bound of how long the guest's file systems stood still.

    libvirt freezes, makes the overlays and thaws in one call and does not say when; the whole call is taken.
    """

    consistency: Consistency
    reasons: tuple[Reason, ...]
    seconds: float = 0.0


class Freezer:
    """Takes one snapshot of a running machine at rest, as far as the policy asks and the guest can.

    ``take(quiesce)`` makes the snapshot, with libvirt's own freeze and thaw around it if ``quiesce``; ``taken`` tells
    whether it exists. ``one_call`` is false where libvirt has no such call (pull mode): then we freeze and thaw.
    """

    def __init__(
        self,
        agent: "GuestAgent",
        thawing: "Thawing",
        take: Callable[[bool], None],
        taken: Callable[[], bool],
        *,
        one_call: bool,
    ) -> None:
        self._agent = agent
        self._thawing = thawing
        self._take = take
        self._taken = taken
        self._one_call = one_call

    def freeze(self, name: str, request: SnapshotRequest, power: PowerState) -> Frozen:
        """Raises ``QuiesceFailed`` where policy ``require`` is not met, ``Refused`` where the snapshot is not made."""
        if power is PowerState.PAUSED:
            why = Reason(ReasonCode.MACHINE_PAUSED, "its agent cannot answer")
            return self._crash_consistent(name, request, why)
        if request.quiesce is QuiescePolicy.NEVER:
            return self._crash_consistent(name, request, Reason(ReasonCode.QUIESCE_NOT_ASKED))
        if (missing := self._agent.unavailable(request.freeze_timeout)) is not None:
            return self._crash_consistent(name, request, missing)
        # A token for each attempt: what the hook said of an earlier one must not count.
        attempt = f"{request.run}.{uuid.uuid4().hex[:8]}"
        unheard = self._agent.announce(attempt)
        started = time.monotonic()
        failed = self._quiesced(name, request.freeze_timeout)
        seconds = time.monotonic() - started
        still = self._thaw_surely(name, request.freeze_timeout if failed else THAW_PATIENCE)
        if failed is not None and not self._taken():
            return self._crash_consistent(name, request, failed, still)
        verdict = Verdict(Consistency.FILESYSTEM, unheard) if unheard else self._agent.verdict(attempt)
        reasons = [verdict.reason, *([failed] if failed else []), *([still] if still else [])]
        return Frozen(verdict.consistency, tuple(reasons), seconds)

    def _quiesced(self, name: str, timeout: float) -> Reason | None:
        """Freeze, take, thaw. Why the guest did not take part, ``None`` when it did; other refusals are raised, thawed."""
        self._thawing.stop(self._agent.machine)
        self._agent.may_freeze(timeout)
        try:
            if self._one_call:
                self._take(True)
            else:
                self._agent.freeze()
                self._take(False)
                self._agent.thaw(timeout)
        except Refused as error:
            if error.refusal in (Refusal.AGENT_SILENT, Refusal.AGENT_MISSING):
                return Reason(ReasonCode.QUIESCE_TIMEOUT, error.why)
            if error.refusal is Refusal.AGENT_REFUSED:
                return Reason(ReasonCode.QUIESCE_FAILED, error.why)
            self._thaw_surely(name, timeout)
            raise
        except BaseException:  # also when the run is interrupted: a frozen guest is an outage
            self._thaw_surely(name, timeout)
            raise
        finally:
            self._agent.freeze_over()
        return None

    def _thaw_surely(self, name: str, patience: float) -> Reason | None:
        """Thaw, by a thread that goes on if ``patience`` seconds are not enough; what is still open, or ``None``."""
        thawed = False
        try:
            thawed = self._agent.thaw(patience)
        finally:  # also when the waiting is interrupted
            if not thawed:
                self._thawing.begin(self._agent, name)
        if thawed:
            return None
        return Reason(ReasonCode.QUIESCE_TIMEOUT, "the agent is still busy; it is thawed as soon as it answers")

    def _crash_consistent(
        self, name: str, request: SnapshotRequest, why: Reason, still: Reason | None = None
    ) -> Frozen:
        if request.quiesce is QuiescePolicy.REQUIRE:
            raise QuiesceFailed(name, why.detail or why.code.value)
        self._take(False)
        return Frozen(Consistency.CRASH, (why, *([still] if still else [])))


class GuestAgent:
    """The agent of one running machine."""

    def __init__(self, domain: Domain, records: Records) -> None:
        self.machine = domain.machine
        self._domain = domain
        self._records = records

    def unavailable(self, timeout: float) -> Reason | None:
        """Why nothing can be quiesced, ``None`` when the agent answers and the guest is not frozen."""
        try:
            status = self._domain.agent("guest-fsfreeze-status", timeout=min(ASK_TIMEOUT, timeout))
        except Refused as error:
            return Reason(ReasonCode.QUIESCE_NO_AGENT, error.why)
        if status != "frozen":
            return None
        if self._records.maybe_frozen(self._domain.machine):
            self.thaw(timeout)  # a run of ours was killed between freeze and thaw
            return None
        return Reason(ReasonCode.QUIESCE_FAILED, "somebody else holds the guest's file systems frozen")

    def announce(self, run: RunId) -> Reason | None:
        """Ask the guest's hook to report on this run; why it will not, or ``None``."""
        try:
            self._write(REQUEST, run.encode())
        except Refused as error:
            if "No such file" in error.why:
                return Reason(ReasonCode.QUIESCED_NO_HOOKS, "the guest has no Lanfree hook (no /run/lanfree)")
            return Reason(ReasonCode.QUIESCED_UNCONFIRMED, error.why)
        return None

    def verdict(self, run: RunId) -> Verdict:
        """After the thaw: read what the hook reported. An answer to another request proves nothing."""
        try:
            answer = json.loads(self._read(RESULT))
        except (Refused, ValueError, binascii.Error) as error:
            return _filesystem(ReasonCode.QUIESCED_UNCONFIRMED, f"no readable report of the hook: {error}")
        return judged(answer, run)

    def may_freeze(self, timeout: float) -> None:
        """Note that the guest may be frozen from now on, and give libvirt's agent commands ``timeout`` seconds."""
        self._records.note_freeze(self._domain.machine)
        self._domain.agent_timeout(timeout)

    def freeze(self) -> None:
        """Freeze all file systems of the guest."""
        self._domain.freeze()

    def freeze_over(self) -> None:
        """Put libvirt's own time-out back."""
        with suppress(Refused):
            self._domain.agent_timeout(None)

    def thaw(self, patience: float, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Ask until the guest is thawed or runs no more. False when it still gave no answer after ``patience`` seconds.

        ``wanted`` is asked before each try: False there, when the guest is somebody else's to thaw by now.
        """
        deadline = time.monotonic() + patience
        while wanted():
            if self._thawed():
                self._records.note_thaw(self.machine)
                return True
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return False

    def _thawed(self) -> bool:
        try:
            if self._domain.agent("guest-fsfreeze-status", timeout=ASK_TIMEOUT) == "thawed":
                return True
            self._domain.agent("guest-fsfreeze-thaw", timeout=ASK_TIMEOUT)
        except Refused as error:
            if error.refusal in (Refusal.NO_DOMAIN, Refusal.AGENT_MISSING):
                return True
            return self._ended()
        except HostUnreachable:
            return False  # its libvirtd restarts, maybe; the guest lives on and may be frozen
        return False

    def _ended(self) -> bool:
        try:
            return self._domain.state().power in (PowerState.OFF, PowerState.SUSPENDED)
        except Refused as error:
            return error.refusal is Refusal.NO_DOMAIN
        except HostUnreachable:
            return False

    def _write(self, path: str, data: bytes) -> None:
        handle = self._domain.agent("guest-file-open", {"path": path, "mode": "w"})
        try:
            content = base64.b64encode(data).decode()
            self._domain.agent("guest-file-write", {"handle": handle, "buf-b64": content})
        finally:
            self._domain.agent("guest-file-close", {"handle": handle})

    def _read(self, path: str) -> bytes:
        handle = self._domain.agent("guest-file-open", {"path": path, "mode": "r"})
        try:
            answer = self._domain.agent("guest-file-read", {"handle": handle, "count": RESULT_LIMIT})
            if not isinstance(answer, dict) or not isinstance(answer.get("buf-b64"), str):
                raise ValueError("the agent's answer has no data")
            return base64.b64decode(answer["buf-b64"])
        finally:
            self._domain.agent("guest-file-close", {"handle": handle})


@dataclass(frozen=True, slots=True)
class _Watch:
    name: str
    thread: threading.Thread
    ended: threading.Event


class Thawing:
    """Threads that go on where a snapshot gave up on a hanging hook, one a machine. Calls may come from any thread."""

    def __init__(self) -> None:
        self._watches: dict[MachineId, _Watch] = {}
        self._lock = threading.Lock()

    def begin(self, agent: GuestAgent, name: str) -> None:
        """Go on thawing the machine ``name``."""
        ended = threading.Event()

        def work() -> None:
            # What is left open (an error of ours, no time any more) has its mark, which the next sweep finds.
            with suppress(LanfreeError):
                agent.thaw(WATCH_SECONDS, lambda: not ended.is_set())

        # A daemon, so that a program that ends without 'finish' is not held for an hour: the mark is there.
        watch = _Watch(name, threading.Thread(target=work, name=f"thaw-{agent.machine}", daemon=True), ended)
        self.stop(agent.machine)
        with self._lock:
            self._watches[agent.machine] = watch
        watch.thread.start()

    def stop(self, machine: MachineId) -> None:
        """Leave the machine alone: it answered, and whoever freezes it now must not be disturbed."""
        with self._lock:
            watch = self._watches.pop(machine, None)
        if watch is not None:
            watch.ended.set()
            watch.thread.join()

    def finish(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait until all guests are seen thawed, at most ``seconds``. Says for whom it waits, and for whom in vain."""
        deadline = time.monotonic() + seconds
        with self._lock:
            watches = [watch for watch in self._watches.values() if watch.thread.is_alive()]
        for watch in watches:
            _log.warning("waiting up to %g s for a hook in guest %s, to thaw it", seconds, watch.name)
        for watch in watches:
            watch.thread.join(max(0.0, deadline - time.monotonic()))
            if watch.thread.is_alive():
                _log.warning("guest %s did not answer and may be frozen; the next sweep thaws it", watch.name)


def judged(answer: object, run: RunId) -> Verdict:
    """What a hook's report proves for this run. Anything unexpected is "unconfirmed": the guest's word is not trusted."""
    if not isinstance(answer, dict) or answer.get("request") != run:
        return _filesystem(ReasonCode.QUIESCED_UNCONFIRMED, "the hook reported on no or another request")
    if answer.get("ok") is False:
        failed, code = _printable(answer.get("failed")), _printable(answer.get("exit"))
        return _filesystem(ReasonCode.QUIESCED_HOOK_FAILED, f"{failed or 'a script'} ended with {code}")
    apps = answer.get("apps")
    if answer.get("ok") is not True or not isinstance(apps, list):
        return _filesystem(ReasonCode.QUIESCED_UNCONFIRMED, "the hook's report is malformed")
    if not apps:
        return _filesystem(ReasonCode.QUIESCED_NO_HOOKS, "the guest has the hook, but no application scripts")
    names = ", ".join(_printable(app) for app in apps[:20])
    return Verdict(Consistency.APPLICATION, Reason(ReasonCode.QUIESCED_HOOKS_CONFIRMED, names))


def _filesystem(code: ReasonCode, detail: str) -> Verdict:
    return Verdict(Consistency.FILESYSTEM, Reason(code, detail))


def _printable(value: object) -> str:
    return "".join(c for c in str(value)[:80] if c.isprintable())
