"""A real PostgreSQL server for tests: private, on a Unix socket in a directory of its own, gone afterwards.

It refuses to run as root, so that root's tests run it as ``postgres`` (or ``nobody``). ``postgres_server()`` is one server;
``PostgresServer.database()`` makes a fresh database in it, which takes a tenth of a second.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg

from proxy import command

USER = "lanfree"

# Seconds for the server to accept connections; it takes a tenth of one on an idle machine.
STARTING = 60.0

# Nothing here has to survive a power cut, so nothing has to reach the disk; but what is committed survives ``kill``.
SETTINGS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=40")


def program(name: str = "postgres") -> Path | None:
    """The newest installed one, or ``None``: Debian keeps servers outside of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[4]))
    plain = shutil.which(name)
    return found[-1] if found else Path(plain) if plain else None


@dataclass
class PostgresServer:
    """``directory``: of its socket. ``password``: what it asks for, if it does."""

    directory: Path
    password: str = ""
    _numbers: Iterator[int] = field(default_factory=count)
    _process: "subprocess.Popen[bytes] | None" = None

    def database(self, template: str = "template1") -> str:
        """Make an empty database, or a copy of another one that nobody is connected to; its name."""
        name = f"test{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())

    def url(self, database: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://{USER}@/{database}?host={quote(str(self.directory), safe='')}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Straight to the server, each statement for itself."""
        facts = {"host": str(self.directory), "user": USER, "dbname": database, "password": self.password or None}
        return psycopg.connect(**facts, autocommit=True)  # type: ignore[arg-type]

    def start(self) -> None:
        """Begin to serve, or go on with what was committed; connections are taken when this returns."""
        settings = (*SETTINGS, f"unix_socket_directories={self.directory}")
        options = [word for each in settings for word in ("-c", each)]
        data = self.directory / "data"
        self._process = command.spawn([*_as_user(), program() or "postgres", "-D", data, *options])
        _wait(self, self._process)

    def stop(self) -> None:
        """Every connection is ended; they are not waited for."""
        if self._process is not None:
            _stop(self._process)
            self._process = None

    def kill(self) -> None:
        """As a power cut or a crash ends it: nobody is told anything, and the next start recovers from the log."""
        if self._process is None:
            return
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()  # first, so that it makes no new ones
        self._process.wait()
        self._process = None
        for child in map(int, children):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + STARTING
        while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
            time.sleep(0.02)


@contextmanager
def postgres_server(password: str = "") -> Iterator[PostgresServer]:
    """Start one; its files are below the system's temporary directory, since pytest's is closed to other users."""
    directory = Path(tempfile.mkdtemp(prefix="lanfree-pg-"))
    try:
        user = _server_user()
        if user:
            shutil.chown(directory, user, user if user != "nobody" else "nogroup")
        initdb = [program("initdb") or "initdb", "-D", directory / "data", "-U", USER, "-E", "UTF8"]
        if password:
            file = directory / "password"
            file.write_text(password)
            file.chmod(0o644)  # for the server's user; it is a test's
            initdb += ["-A", "scram-sha-256", f"--pwfile={file}"]
        else:
            initdb += ["-A", "trust"]
        command.run([*_as_user(), *initdb, "--locale=C.UTF-8", "--no-sync"], timeout=STARTING)
        server = PostgresServer(directory, password)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


def _as_user() -> list[str]:
    user = _server_user()
    if not user:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]


def _server_user() -> str:
    """Whom the server runs as, empty for ourselves."""
    if os.geteuid() != 0:
        return ""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _wait(server: PostgresServer, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + STARTING
    while True:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """A fast shutdown: connections are ended, not waited for."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    command.stop(process)
