"""``lanfree web`` and ``lanfree serve`` as processes, over an appliance without hypervisors, and a client of theirs."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONG = 120.0
"""Seconds for anything to come true on a busy machine."""

CONFIGURATION = """
[repository]
path = "{base}/repository"
unencrypted = true
[state]
directory = "{base}/state"
[log]
format = "text"
[web]
address = "127.0.0.1:0"
{more}
"""


def until(true: Callable[[], Any], what: str, within: float = LONG) -> Any:
    """Look ten times a second; what was true."""
    deadline = time.monotonic() + within
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.1)
    return found


@dataclass
class WebSite:
    """``base``: for everything; ``more``: lines of ``[web]`` and of sections after it."""

    base: Path
    more: str = ""
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = self.base / "lanfree.toml"
        self.file.write_text(CONFIGURATION.format(base=self.base, more=self.more))
        self.log = self.base / "log"
        self.lanfree("init")

    def lanfree(self, *words: str, stdin: str = "", code: int = 0) -> Any:
        """A command to its end; its JSON document."""
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(self.file), "--json", *words]
        done = subprocess.run(argv, input=stdin.encode(), capture_output=True, timeout=LONG, check=False)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """``web`` or ``serve``; its log goes to ``log``."""
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(self.file), *words]
        with self.log.open("ab") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def running(self, besides: int = 0) -> dict[str, Any]:
        """Wait until one answers whose number is not ``besides``; what it says of itself."""

        def look() -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = json.loads((self.base / "state" / "web" / "running.json").read_bytes())
                os.kill(found["pid"], 0)
            except (OSError, ValueError):
                return None
            return found if found["pid"] != besides and self.answers(found["port"]) else None

        found: dict[str, Any] = until(look, f"the console answers: {self.said()[-2000:]}")
        return found

    def said(self) -> str:
        """The log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def authority(self) -> Path:
        """What clients trust."""
        return self.base / "state" / "web" / "ca.pem"

    def connected(self, port: int, **options: Any) -> ssl.SSLSocket:
        """A connection that has said nothing yet."""
        context = ssl.create_default_context(cafile=str(options.pop("cafile", self.authority)))
        if ciphers := options.pop("ciphers", ""):
            context.set_ciphers(ciphers)
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        for name, value in options.items():
            setattr(context, name, value)
        return context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), timeout=30), server_hostname="localhost"
        )

    def get(self, port: int, path: str, **headers: str) -> http.client.HTTPResponse:
        """Over TLS, with the authority."""
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()

    def answers(self, port: int) -> bool:
        """Whether it says that it lives."""
        try:
            return self.get(port, "/api/v1/health/live").status == http.client.OK
        except OSError:
            return False

    def close(self) -> None:
        """End what was started."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
