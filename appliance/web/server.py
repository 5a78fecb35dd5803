"""The process of API and console: uvicorn over TLS with bounds, which ends within seconds, shows a new certificate without
being started anew, and follows the configuration file."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from types import FrameType

import uvicorn

from api.app import create_app
from api.settings import WebSettings
from appliance.web import access, listening, names, tls
from appliance.web.desk import desk_of
from appliance.web.patient import HEAD_BYTES, PatientProtocol
from appliance.web.taking import Taking
from appliance.wiring import Services
from proxy.errors import LanfreeError

_LOG = logging.getLogger("lanfree.web")

GRACE_SECONDS = 5
"""For answers that are under way when the process is to end; downloads are cut off then, and can be gone on with."""

FAREWELL_SECONDS = 2.0
"""For the other end to close its connection as well. TLS would wait 30 s for that, and a client that reads nothing while it has
nothing to ask never does it."""

INSIST_SECONDS = 15.0
"""After which the process ends in any case, whatever a library still waits for."""

SILENT_SECONDS = 75
"""Between two requests of a connection: a console page polls less often than it keeps its connection."""

LOOK_SECONDS = 1.0
"""Between looks at the configuration file and at whether the parent lives."""

CERTIFICATE_SECONDS = 60.0
"""Between looks at the certificate: for its end, for new names of the machine, for files that were replaced."""

OPEN_FILES = 16384
"""As many as may be open, where the system allows it: each connection is one, and so is each that has not said a word yet."""

MESSAGE_BYTES = 1024 * 1024
"""Of a websocket's message: what browsers send is clicks and forms."""


class Ending(Enum):
    """Why it ended."""

    ASKED = "asked"
    NEW_CONFIGURATION = "new-configuration"
    """The file says something now that only a new process can take."""


def run(services: Services, *, parent: int | None = None) -> Ending:
    """Until the process is told to end (SIGTERM, SIGINT). ``parent``: ends with that process. Raises ``ConfigurationError``
    for a port that is taken and for a certificate that cannot be used."""
    web = services.settings.web
    directory = services.settings.state.directory / "web"
    _raise_limit()
    identity = tls.identity(web, directory)
    listener = listening.listen(web)
    ending = threading.Event()
    port = listener.getsockname()[1]
    running = listening.Running(names.address_of(web, port), port, os.getpid())
    app = create_app(desk_of(services), WebSettings(hosts=_hosts(services), ending=ending))
    server = _Server(_config(app, services, identity), ending)
    watch = _Watch(services, server, identity, parent)
    with listening.told(directory, running):
        _announce(services, running, identity)
        watch.start()
        server.run(sockets=[listener])
    _LOG.info("the console ended", extra={"event": "web-ended"})
    return watch.why


def _config(app: object, services: Services, identity: tls.Identity) -> uvicorn.Config:
    web = services.settings.web
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # FastAPI's own type of applications is wider
        http=PatientProtocol,
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(web.trusted_proxies),
        forwarded_allow_ips=list(web.trusted_proxies),
        limit_concurrency=web.connections,
        backlog=listening.BACKLOG,
        timeout_keep_alive=SILENT_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ssl_context_factory=lambda _config, _default: identity.context(),
    )


def _hosts(services: Services) -> tuple[str, ...]:
    """Names under which requests are taken: a page of somebody else's cannot have its own name lead here."""
    return tuple(names.names_of(services.settings.web))


class _Server(uvicorn.Server):
    """Ends by SIGTERM and SIGINT as others of our processes do: with exit code 0, and at once when asked twice."""

    def __init__(self, config: uvicorn.Config, ending: threading.Event) -> None:
        super().__init__(config)
        self.ending = ending

    def end(self) -> None:
        """From any thread."""
        self.ending.set()
        self.should_exit = True
        insist = threading.Timer(INSIST_SECONDS, os._exit, (0,))
        insist.daemon = True
        insist.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As the base, without waiting for those who have been answered and do not close."""
        # Asked for now: a connection that is closed twice tells nothing of its socket any more.
        open_ = [each.transport.get_extra_info("socket") for each in self.server_state.connections]
        hanging_up = asyncio.create_task(self._hang_up(open_))
        try:
            await super().shutdown(sockets)
        finally:
            hanging_up.cancel()

    async def _hang_up(self, connections: Sequence[socket.socket]) -> None:
        """Take what never comes, the farewells, for come; what is still being sent is not cut off."""
        await asyncio.sleep(FAREWELL_SECONDS)
        while self.server_state.tasks:  # somebody is still being answered
            await asyncio.sleep(FAREWELL_SECONDS)
        for each in connections:
            with contextlib.suppress(OSError):  # closed meanwhile
                each.shutdown(socket.SHUT_RD)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal."""
        if self.should_exit:
            os._exit(128 + sig)
        self.end()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As the base, but what ended the process is not raised again."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Watch:
    """What is looked at beside the requests, on a thread of its own."""

    def __init__(self, services: Services, server: _Server, identity: tls.Identity, parent: int | None) -> None:
        self._services = services
        self._server = server
        self._identity = identity
        self._parent = parent
        self._taking = Taking(services)
        self._certificate_at = time.monotonic() + CERTIFICATE_SECONDS
        self._stamp = _stamp(identity)
        self.why = Ending.ASKED

    def start(self) -> None:
        """Ends with the process."""
        threading.Thread(target=self._run, name="web-watch", daemon=True).start()

    def _run(self) -> None:
        while not self._server.ending.wait(LOOK_SECONDS):
            try:
                self._look()
            except LanfreeError as error:
                _LOG.error("%s", error.message, extra={"event": "web-watch-failed", "hint": error.hint})
            except Exception:  # noqa: BLE001  # it comes again, and a fault here must not end what answers people
                _LOG.exception("a fault in Lanfree")

    def _look(self) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            _LOG.warning("what started the console is gone: ending", extra={"event": "web-orphaned"})
            self._server.end()
            return
        lasting = self._taking.look()
        if lasting:
            _LOG.warning(
                "starting anew, since the configuration changed: %s",
                ", ".join(lasting),
                extra={"event": "web-starts-anew"},
            )
            self.why = Ending.NEW_CONFIGURATION
            self._server.end()
        elif time.monotonic() >= self._certificate_at or _stamp(self._identity) != self._stamp:
            self._certificate_at = time.monotonic() + CERTIFICATE_SECONDS
            self._renew()

    def _renew(self) -> None:
        """Whoever connects from now on is shown the certificate that counts now; the one before it stays where the new one
        cannot be used."""
        settings = self._services.settings
        self._stamp = _stamp(self._identity)  # what cannot be used is complained of once
        found = tls.identity(settings.web, settings.state.directory / "web")
        if (
            found.certificate == self._identity.certificate
            and found.certificate_file == self._identity.certificate_file
        ):
            return
        context = self._server.config.ssl
        if context is not None:
            found.into(context)
        self._identity, self._stamp = found, _stamp(found)
        _LOG.warning(
            "the console shows a new certificate: %s, until %s",
            found.fingerprint,
            found.expires_at.date(),
            extra={"event": "web-certificate"},
        )


def _stamp(identity: tls.Identity) -> Sequence[tuple[int, int]]:
    """Of the files: changes when they are replaced."""
    found = []
    for file in (identity.certificate_file, identity.key_file):
        with contextlib.suppress(OSError):
            seen = file.stat()
            found.append((seen.st_ino, seen.st_mtime_ns))
    return found


def _announce(services: Services, running: listening.Running, identity: tls.Identity) -> None:
    known = {"event": "web-serving", "url": running.url, "fingerprint": identity.fingerprint}
    _LOG.info("console and API: %s (certificate %s)", running.url, identity.fingerprint, extra=known)
    if access.needs_setup(services):
        _LOG.warning(
            "nobody can sign in yet: 'lanfree web code' shows the one-time code for the first administrator at %s",
            running.url,
            extra={"event": "web-needs-setup", "url": running.url},
        )


def _raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
