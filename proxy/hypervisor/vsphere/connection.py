"""The only door to pyVmomi: one vCenter as an object that any thread may use, every error one of ours.

Objects of ``vim`` that come out of here carry our own stub, so that whatever is called on them, anywhere, goes through
``Vcenter._invoke``: logged in again when the session ended, faults translated, asked again while vCenter restarts. Nothing
else in the package catches an error of pyVmomi, because none gets out.

Asked again is only what can be asked twice: reading calls by their name (``REPEATABLE``), any call of which nothing was
sent, and any call that vCenter refused because the session was over. A call that changes something and whose answer never
came raises ``Refused`` with ``OUTCOME_UNKNOWN``; who made it looks what became of it.
"""

import http.client
import re
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError

import pyVmomi
from pyVmomi import VmomiSupport

from proxy.errors import ConfigurationError, HostUnreachable, HypervisorError, LanfreeError
from proxy.hypervisor.vsphere.faults import Refusal, Refused, moid, refused
from proxy.hypervisor.vsphere.settings import VsphereSettings, plain_thumbprint
from proxy.hypervisor.vsphere.tls import NotConnected, Pin, PinnedConnection

# The types of the API, for the whole package. Untyped on purpose: they are made at run time from the API's description.
vim: Any = pyVmomi.vim
vmodl: Any = pyVmomi.vmodl

# Calls that only read, or whose second time does what the first did. By the names of the Web Services API.
REPEATABLE = re.compile(
    r"Fetch|CurrentTime|(Retrieve|Query|Find|Check|Has|Validate|Get|List|Search|Fetch|Lookup|Parse)\w*"
    r"|CreateContainerView|DestroyView|CreateImportSpec|CreateDescriptor|CancelTask|Refresh\w*|HttpNfcLeaseProgress"
    r"|HttpNfcLeaseGetManifest|SetField"
)

# The oldest API that a vCenter is spoken to in before its own list of versions was read: vSphere 5.5.
OLDEST = "vim.version.version9"

# How a call breaks off: the network, HTTP, an answer that is cut off or no XML.
BROKEN = (OSError, http.client.HTTPException, ExpatError, zlib.error)

# Seconds between two attempts: the first soon (a dropped connection), then rarer (a restarting vCenter has enough to do).
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 15.0

# A pooled connection that was idle for longer is not used again. vCenter's proxy hangs up after about a minute; a call on
# a connection that was hung up is one that nobody knows the outcome of.
POOL_SECONDS = 20.0

# Sessions that nothing was ever answered in, for one call: a second refusal of a fresh one means something else is wrong.
LOGINS_PER_CALL = 2

# All that one call may meet: others' calls may have used up what it logged in for. More is a server that ends each at once.
SESSIONS_PER_CALL = 10

# Answers that are no XML, one after the other, before it is said so: one may have been cut off. A machine's notes with control
# characters make every answer about it such a one.
UNPARSED = 3

# Bytes of the list of versions, which has a few KiB: more is nonsense.
ANSWER_LIMIT = 1024 * 1024


class _Stub(pyVmomi.StubAdapterBase):  # type: ignore[misc] # untyped base
    """What ``vim`` objects call: everything goes to the vCenter's ``_invoke``."""

    def __init__(self, invoke: Callable[[Any, Any, Any], Any], version: str) -> None:
        super().__init__(version=version)
        self._invoke = invoke

    def InvokeMethod(self, mo: Any, info: Any, args: Any) -> Any:  # noqa: N802 - pyVmomi's name
        return self._invoke(mo, info, args)


class _Session:
    """One login, with connections and a cookie of its own: calls that are still under way with an older one, or answers that
    bring a cookie of no login, do not spoil it."""

    def __init__(self, settings: VsphereSettings, pin: Pin, version: str, stub: _Stub) -> None:
        self.soap = pyVmomi.SoapStubAdapter(
            host=settings.host,
            port=settings.port,
            version=version,
            connectionPoolTimeout=POOL_SECONDS,
            httpConnectionTimeout=settings.call_timeout,
        )
        self.soap.scheme = partial(PinnedConnection, pin=pin)  # the pool makes its connections with it
        self._stub = stub
        self.content: Any = None
        self.worked = False
        """Something was answered in it, so that a refusal is its end, and not its beginning."""

    def exchange(self, mo: Any, info: Any, args: Any, what: str) -> tuple[int, Any]:
        """HTTP status, and result or fault. Raises ``Refused`` for an answer that pyVmomi does not understand, and what the
        network raises."""
        try:
            status, answer = self.soap.InvokeMethod(mo, info, args, self._stub)
        except vmodl.MethodFault as fault:  # pyVmomi itself refuses what the server's version does not have
            raise refused(what, fault) from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            why = f"vCenter's answer cannot be understood ({type(error).__name__}: {error})"
            raise Refused(what, why, Refusal.UNREADABLE) from error
        return status, answer

    def call(self, mo: Any, method: str, *args: Any) -> Any:
        """A call that is never repeated. Raises our errors for faults, the network's own otherwise."""
        status, answer = self.exchange(mo, mo._GetMethodInfo(method), args, method)
        if status != 200:
            raise refused(method, answer)
        return answer


class Vcenter:
    """A vCenter, logged in when it is first needed. Calls may come from any thread; closing twice is allowed."""

    def __init__(self, settings: VsphereSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.where = f"vsphere {settings.name}"
        self.pin = Pin(plain_thumbprint(settings.thumbprint), settings.ca_bundle)
        self.known = False
        """It answered at least once, so that silence means a restart and not a wrong address."""
        self._stub = _Stub(self._invoke, OLDEST)
        self._login_lock = threading.Lock()
        self._session: _Session | None = None
        self._keeper: _KeepAlive | None = None

    # -- what others use -------------------------------------------------------------------------------------------

    @property
    def content(self) -> Any:
        """``ServiceContent``: root folder and managers."""
        return self._logged_in().content

    def object(self, kind: Any, reference: str) -> Any:
        """A managed object by its id, not asked for: ``object(vim.VirtualMachine, "vm-12")``."""
        return kind(reference, self._stub)

    def now(self) -> Any:
        """vCenter's own clock, with time zone."""
        return self.object(vim.ServiceInstance, "ServiceInstance").CurrentTime()

    def log_out(self) -> None:
        """End the session, if there is one; the next call logs in again."""
        with self._login_lock:
            session, self._session = self._session, None
        if session is not None:
            with suppress(LanfreeError, *BROKEN):
                session.call(session.content.sessionManager, "Logout")  # else it ends by itself after half an hour
            session.soap.DropConnections()

    def close(self) -> None:
        """Log out and stop the keep-alive. The next call connects again."""
        with self._login_lock:
            keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
        self.log_out()

    def session_ended(self) -> None:
        """Somebody found out in another way than by a refused call: the next call logs in again."""
        self._forget(self._session)

    def drop_connections(self) -> None:
        """Idle connections are not used again, as after ``POOL_SECONDS``; the session stays."""
        if self._session is not None:
            self._session.soap.DropConnections()

    def cookie(self) -> str:
        """The session's ``Cookie`` header, for files and exports over plain HTTPS. A secret."""
        return str(self._logged_in().soap.cookie)

    def http(self, timeout: float | None = None) -> PinnedConnection:
        """A new connection to vCenter's own web server, pinned; the caller closes it."""
        settings = self.settings
        return PinnedConnection(settings.host, settings.port, pin=self.pin, timeout=timeout or settings.call_timeout)

    # -- calls -----------------------------------------------------------------------------------------------------

    def _invoke(self, mo: Any, info: Any, args: Any) -> Any:
        """One call of the API. Raises our errors only."""
        what = f"{info.wsdlName} of {moid(mo)}" if info.wsdlName != "Fetch" else f"{info.name} of {moid(mo)}"
        retrying = _Retrying(self, what)
        fresh = 0
        for _ in range(SESSIONS_PER_CALL):
            session, status, answer = self._attempt(mo, info, args, retrying)
            if status == 200:
                session.worked = True
                return answer
            if not isinstance(answer, vim.fault.NotAuthenticated):
                raise refused(what, answer)
            self._forget(session)
            fresh += not session.worked
            if fresh == LOGINS_PER_CALL:
                break
        raise refused(what, answer)

    def _attempt(self, mo: Any, info: Any, args: Any, retrying: "_Retrying") -> tuple[_Session, int, Any]:
        """Until there is an answer. Returns the session that it was given in, the HTTP status, and result or fault."""
        repeatable = REPEATABLE.fullmatch(info.wsdlName) is not None
        while True:
            session = self._logged_in(retrying)
            try:
                status, answer = session.exchange(mo, info, args, retrying.what)
            except NotConnected as error:
                retrying.pause(error)
            except BROKEN as error:
                _check_answer(retrying.what, error)
                if not repeatable:
                    raise Refused(
                        retrying.what,
                        f"the connection to {self.settings.host} broke before the answer came: {_words(error)}",
                        Refusal.OUTCOME_UNKNOWN,
                    ) from None
                if isinstance(error, ExpatError | zlib.error):
                    retrying.unparsed(error)
                retrying.pause(error)
            else:
                return session, status, answer

    # -- the session -----------------------------------------------------------------------------------------------

    def _logged_in(self, retrying: "_Retrying | None" = None) -> _Session:
        """The session, a new one where needed. Raises ``HostUnreachable``, ``CertificateRefused``, ``ConfigurationError``."""
        session = self._session
        if session is not None:
            return session
        retrying = retrying or _Retrying(self, "log in")
        while True:
            try:
                with self._login_lock:
                    if self._session is None:
                        self._session = self._log_in()
                    return self._session
            except Refused as error:
                if error.refusal is not Refusal.OTHER:  # while vCenter starts, its parts fail in ways of their own
                    raise
                retrying.pause(error)
            except BROKEN as error:
                _check_answer("log in", error)
                retrying.pause(error)

    def _log_in(self) -> _Session:
        settings = self.settings
        password = read_password(self.where, settings.password_file)
        version = _negotiate(self._get("/sdk/vimServiceVersions.xml"))
        session = _Session(settings, self.pin, version, self._stub)
        self._stub.ComputeVersionInfo(version)
        session.content = session.call(self.object(vim.ServiceInstance, "ServiceInstance"), "RetrieveContent")
        try:
            session.call(session.content.sessionManager, "Login", settings.user, password, None)
        except Refused as error:
            if error.refusal is not Refusal.LOGIN:
                raise
            raise ConfigurationError(
                self.where,
                f"{settings.host} refuses user {settings.user} or its password",
                hint=f"put the right password into {settings.password_file}; many wrong ones lock the account",
            ) from None
        self.known = True
        if self._keeper is None:
            self._keeper = _KeepAlive(self)
        return session

    def _forget(self, session: _Session | None) -> None:
        with self._login_lock:
            if session is not None and session is self._session:  # else another thread has logged in again already
                self._session = None
                session.soap.DropConnections()

    # -- plain HTTP ------------------------------------------------------------------------------------------------

    def _get(self, path: str) -> bytes:
        """A small document without a session. Raises what the network raises."""
        connection = self.http()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(ANSWER_LIMIT)
            if answer.status != 200:
                raise http.client.HTTPException(f"{answer.status} {answer.reason}")
            return body
        finally:
            connection.close()


class _KeepAlive:
    """Asks for the time now and then, so that the session and what hangs on it live on while disks are read."""

    def __init__(self, vcenter: Vcenter) -> None:
        self._vcenter = vcenter
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"vsphere-{vcenter.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No further call begins."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._vcenter.settings.keep_alive):
            with suppress(LanfreeError):  # whoever needs the session next is told
                self._vcenter.now()


class _Retrying:
    """Pauses between attempts, longer each time, until patience ends: none for a vCenter that never answered yet."""

    def __init__(self, vcenter: Vcenter, what: str) -> None:
        self._vcenter = vcenter
        self.what = what
        self._pause = FIRST_PAUSE
        self._unparsed = 0
        self._deadline: float | None = None

    def unparsed(self, error: Exception) -> None:
        """Raises ``Refused`` (``UNREADABLE``) when answers keep being no XML."""
        self._unparsed += 1
        if self._unparsed >= UNPARSED:
            raise Refused(
                self.what,
                f"vCenter's answer is no XML: {error}",
                Refusal.UNREADABLE,
                hint="look for control characters in names and notes of the machines that it is about",
            ) from None

    def pause(self, error: Exception) -> None:
        """Returns when it is time to ask again. Raises ``HostUnreachable`` when it is not worth it any more."""
        now = time.monotonic()
        patience = self._vcenter.settings.restart_patience if self._vcenter.known else 0.0
        if self._deadline is None:
            self._deadline = now + patience
        settings = self._vcenter.settings
        if now >= self._deadline:
            raise HostUnreachable(
                settings.name,
                f"{self.what}: {settings.host}:{settings.port}: {_words(error)}"
                + (f" (for {patience:g} s)" if patience else ""),
                hint="check that vCenter runs, and that the proxy reaches its port",
            ) from None
        time.sleep(min(self._pause, self._deadline - now))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def read_password(where: str, path: Path) -> str:
    """The first line of a file that only its owner may read. Raises ``ConfigurationError``."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(where, f"password_file {path} can be read by others", hint=f"chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigurationError(where, f"password_file {path} cannot be read: {why}") from None
    if not lines or not lines[0]:
        raise ConfigurationError(where, f"password_file {path} is empty", hint="its first line is the password")
    return lines[0]


def _negotiate(document: bytes) -> str:
    """The newest version of the API that both sides know, from ``vimServiceVersions.xml``."""
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 - from the pinned server; expat limits entity expansion
    except ElementTree.ParseError as error:
        raise http.client.HTTPException(f"its list of API versions is no XML: {error}") from None
    offered = {
        element.text
        for namespace in root.iter("namespace")
        if namespace.findtext("name") == "urn:vim25"
        for element in (*namespace.findall("version"), *namespace.findall("priorVersions/version"))
    }
    for version in VmomiSupport.GetServiceVersions("vim25"):
        if VmomiSupport.versionIdMap[version] in offered:
            return str(version)
    return OLDEST


def _check_answer(what: str, error: Exception) -> None:
    """Raises at once for an HTTP status that no waiting changes: a wrong port or path, a proxy in between."""
    status = re.match(r"(\d{3}) ", str(error)) if isinstance(error, http.client.HTTPException) else None
    if status is not None and not status[1].startswith("5"):
        raise HypervisorError(what, f"HTTP {error}", hint="is host and port that of a vCenter or an ESXi host?")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
