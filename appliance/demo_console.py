"""The demo's last chapter: ``lanfree serve`` on the demo's lab, with its console, as somebody meets it on the first day."""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.client import Client
from api.schemas.access import Session
from api.schemas.vitals import Health
from appliance.config import Settings
from appliance.config_file import ConfigurationFile
from appliance.config_web import Web
from appliance.web import listening
from proxy import command
from proxy.errors import ConfigurationError, LanfreeError, ToolFailed

START_SECONDS = 120.0
"""It takes four seconds on a quiet machine."""

END_SECONDS = 60.0
"""For runs that are under way when the demo is ended: they stop at their next segment."""

_CODE_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Console:
    """One that runs. ``address``: for people; ``code``: makes the first administrator; ``authority``: what clients are to
    trust; ``fingerprint``: of what browsers are shown; ``seconds``: until it answered."""

    address: str
    port: int
    code: str
    authority: Path
    fingerprint: str
    seconds: float

    @property
    def lines(self) -> Sequence[str]:
        """For who reads the terminal: where, what with, and how to know that it is this one."""
        return (
            f"console:       {self.address}    (on this machine: https://localhost:{self.port})",
            f"one-time code: {self.code}    makes you the first administrator; good once, for a day",
            "certificate:   your browser does not know it and will warn; go on if this is its SHA-256 fingerprint:",
            f"               {self.fingerprint}",
            f"               (or let it trust the authority that signed it: {self.authority})",
        )


@contextmanager
def console(config: Path, *, public: bool, uris: Sequence[str], restores: Path, log: Path) -> Iterator[Console]:
    """Jobs and console on a lab, until the block ends. ``public``: reached from other machines, at the usual port if that is
    free; else from this one alone. ``uris``: patterns of addresses of hypervisors that people may add. Raises ``ToolFailed``
    when it does not answer."""
    restores.mkdir(mode=0o700, exist_ok=True)
    values = {"address": _address() if public else "127.0.0.1:0", "hypervisor_uris": list(uris)}
    values["restore_directories"] = [str(restores)]
    settings = ConfigurationFile(config).change(
        {("files", "index"): None, **{("web", key): value for key, value in values.items()}}
    )
    begun = time.monotonic()
    with log.open("ab") as output:
        process = command.spawn([*_lanfree(config), "serve"], log=output.fileno())
    try:
        running = _answering(settings, process, log)
        seconds = time.monotonic() - begun
        code, fingerprint = (_said(config, word)[word] for word in ("code", "fingerprint"))
        yield Console(running.url, running.port, code, _authority(settings), fingerprint, seconds)
    finally:
        command.stop(process, grace=END_SECONDS)


def first_administrator(made: Console) -> Session:
    """Make one with the code, as a browser would, then sign in anew with the password. Raises what the API refuses."""
    name, password = "demo", secrets.token_urlsafe(18)
    with _client(made) as client:
        client.post(Session, "/setup", {"code": made.code, "name": name, "password": password})
    with _client(made) as client:
        client.post(Session, "/session", {"name": name, "password": password})
        return client.get(Session, "/session")


def _said(config: Path, word: str) -> Any:
    """What ``lanfree web WORD`` says."""
    return json.loads(command.run([*_lanfree(config), "--json", "web", word], timeout=_CODE_TIMEOUT).text)


def _client(made: Console) -> Client:
    return Client(f"https://localhost:{made.port}", authority=made.authority.read_text())


def _answering(settings: Settings, process: "subprocess.Popen[bytes]", log: Path) -> listening.Running:
    """What answers over TLS, with a certificate that its authority signed."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        running = listening.found(settings.state.directory / "web")
        if running is not None:
            url = f"https://localhost:{running.port}"
            with suppress(LanfreeError), Client(url, authority=_authority(settings).read_text()) as client:
                client.get(Health, "/health/live")
                return running
        time.sleep(0.2)
    raise ToolFailed("lanfree serve", "has no console that answers", log.read_text(errors="replace"))


def _authority(settings: Settings) -> Path:
    return settings.state.directory / "web" / "ca.pem"


def _lanfree(config: Path) -> list[str]:
    return [sys.executable, "-m", "appliance.cli", "--config", str(config)]


def _address() -> str:
    """The usual one, another where that is taken."""
    try:
        listening.listen(Web()).close()
    except ConfigurationError:
        return ":0"
    return Web().address
