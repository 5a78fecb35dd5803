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

# Nothing here survives the tests, so nothing has to reach the disk.
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=40")


def program(name: str = "postgres") -> Path | None:
    """The newest installed one, or ``None``: Debian keeps servers outside of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[4]))
    plain = shutil.which(name)
    return found[-1] if found else Path(plain) if plain else None


@dataclass(frozen=True)
class PostgresServer:
    """``directory``: of its socket."""

    directory: Path
    _numbers: Iterator[int] = field(default_factory=count)

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
        return psycopg.connect(host=str(self.directory), user=USER, dbname=database, autocommit=True)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start one; its files are below the system's temporary directory, since pytest's is closed to other users."""
    directory = Path(tempfile.mkdtemp(prefix="lanfree-pg-"))
    try:
        user = _server_user()
        if user:
            shutil.chown(directory, user, user if user != "nobody" else "nogroup")
        as_user = (
            ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"] if user else []
        )
        data = directory / "data"
        initdb = [program("initdb") or "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8"]
        command.run([*as_user, *initdb, "--locale=C.UTF-8", "--no-sync"], timeout=STARTING)
        settings = [word for each in (*SETTINGS, f"unix_socket_directories={directory}") for word in ("-c", each)]
        process = command.spawn([*as_user, program() or "postgres", "-D", data, *settings])
        try:
            server = PostgresServer(directory)
            _wait(server, process)
            yield server
        finally:
            _stop(process)
    finally:
        shutil.rmtree(directory)


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
