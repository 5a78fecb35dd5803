"""Several proxies over one PostgreSQL, one of them killed for good in the middle of a night's work.

    python -m tests.system.fleet.demo [--json]      ends with 4 if a claim did not hold

A real array, two libvirt hosts with a dozen machines, three ``lanfree serve`` as three machines would run them: each with a
state directory of its own, nothing in common but the database and the repository. That limits were kept is taken from what the
database showed every few milliseconds, not from what a proxy says of itself.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from appliance.demo import Claim, DemoResult
from appliance.lab.lab import Lab
from appliance.lab.machines import fleet
from proxy.errors import ToolFailed
from tests.integration.catalog.postgres_server import PostgresServer, postgres_server

PROXIES = ("proxy-1", "proxy-2", "proxy-3")
MORE = 9
"""Machines beside the lab's own five."""
PER_HOST, PER_FULL, PER_REPOSITORY, SLOTS = 2, 2, 5, 2
BEAT, FENCE, TAKEOVER = 0.5, 2.0, 4.0
"""Seconds, and an eighth of what they are by default or less: nobody wants to watch a minute of silence."""
GLANCE = 0.01
"""Seconds between two looks at what runs."""
COMMAND_TIMEOUT = 120.0
NIGHT_TIMEOUT = 300.0
ATTENTION = 4
"""Exit status when a claim did not hold, as ``lanfree demo``'s."""

RUNNING = """
    SELECT t.run, t.machine, t.machine_name, t.proxy, t.keys FROM tasks t WHERE t.state = 'running' AND t.kind = 'backup'
"""


@dataclass
class Watch:
    """What ran at the same time, by key: seen by looking at the database over and over. ``looks``: how often. A proxy's slots
    are for what it begins; what it takes over goes on beside that, and counts for whoever began it (``began``: by run)."""

    connect: Callable[[], psycopg.Connection]
    most: Counter[str] = field(default_factory=Counter)
    by: dict[str, set[str]] = field(default_factory=dict)
    began: dict[str, str] = field(default_factory=dict)
    looks: int = 0
    changes: int = 0
    _before: frozenset[str] = frozenset()

    def look(self, connection: psycopg.Connection) -> list[Any]:
        """Once."""
        rows = connection.execute(RUNNING).fetchall()
        held: Counter[str] = Counter()
        for run, machine, name, proxy, keys in rows:
            held.update([f"machine:{machine}", f"proxy:{self.began.setdefault(run, proxy)}", *json.loads(keys)])
            self.by.setdefault(name, set()).add(proxy)
        for key, count in held.items():
            self.most[key] = max(self.most[key], count)
        now = frozenset(row[0] for row in rows)
        self.looks += 1
        self.changes += now != self._before
        self._before = now
        return rows

    @contextmanager
    def watching(self) -> Iterator[None]:
        """On a thread of its own."""
        ended = threading.Event()

        def work() -> None:
            with self.connect() as connection:
                while not ended.wait(GLANCE):
                    self.look(connection)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def run(say: Callable[[str], None]) -> DemoResult:
    """The whole story; everything is taken down at the end. Raises ``ToolFailed``."""
    started = time.monotonic()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lanfree-fleet-")))
        say(f"bringing up an array, two hosts, {5 + MORE} machines, and PostgreSQL")
        server = stack.enter_context(postgres_server())
        lab = stack.enter_context(Lab.up(scratch / "lab", more=fleet(MORE)))
        demo = _Demo(lab, server, scratch, say)
        stack.callback(demo.end_all)
        demo.claim("the lab is up", True, f"{time.monotonic() - started:.1f} s")
        demo.begin()
        demo.night()
        demo.protected()
        demo.limits()
        demo.nothing_left()
    demo.result.seconds = time.monotonic() - started
    return demo.result


class _Demo:
    def __init__(self, lab: Lab, server: PostgresServer, scratch: Path, say: Callable[[str], None]) -> None:
        self._lab = lab
        self._say = say
        self._scratch = scratch
        self._database = server.database()
        self._server = server
        self._proxies: dict[str, subprocess.Popen[bytes]] = {}
        self._names: dict[str, str] = {}
        self._victim = ""
        self._watch = Watch(lambda: server.connect(self._database))
        self._run: Mapping[str, Any] = {}
        self.result = DemoResult()

    # --- telling and doing --------------------------------------------------------------------------------------------

    def claim(self, text: str, holds: bool, figure: str) -> None:
        """Note a claim and tell it."""
        self.result.claims.append(Claim(text, holds, figure))
        self._say(f"  {'✓' if holds else '✗ DOES NOT HOLD:'} {text}: {figure}")

    def lanfree(self, *words: str, proxy: str = PROXIES[0], good: tuple[int, ...] = (0,)) -> Any:
        """Run a command of the product on one of the proxies. Raises ``ToolFailed`` unless it ends well."""
        self._say(f"{proxy}$ lanfree {' '.join(words)}")
        done = subprocess.run(
            self._argv(proxy, "--json", *words), capture_output=True, timeout=COMMAND_TIMEOUT, check=False
        )
        if done.returncode not in good:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise ToolFailed(f"lanfree {words[0]}", f"ended with {done.returncode}", said)
        return json.loads(done.stdout)

    def _argv(self, proxy: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "appliance.cli", "--config", str(self._configuration(proxy)), *words]

    def _configuration(self, proxy: str) -> Path:
        return self._scratch / f"{proxy}.toml"

    def _configure(self, proxy: str) -> None:
        state = self._scratch / proxy
        text = self._lab.configuration().replace(str(self._lab.directory / "state"), str(state))
        more = f"""
[database]
url = "{self._server.url(self._database)}"
[proxy]
name = "{proxy}"
slots = {SLOTS}
beat = {BEAT}
fence = {FENCE}
takeover = {TAKEOVER}
[limits]
per_host = {PER_HOST}
full_per_host = {PER_FULL}
per_repository = {PER_REPOSITORY}
[files]
index = false
[web]
enabled = false
"""
        self._configuration(proxy).write_text(text + more)

    def _serve(self, proxy: str) -> None:
        self._say(f"{proxy}$ lanfree serve &")
        with (self._scratch / f"{proxy}.log").open("wb") as log:
            self._proxies[proxy] = subprocess.Popen(self._argv(proxy, "serve"), stdout=log, stderr=log)

    def end_all(self) -> None:
        """Every proxy that still serves: cleanly, then not."""
        for process in self._proxies.values():
            process.terminate()
        for process in self._proxies.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait(self, what: str, seen: Callable[[], bool], timeout: float = NIGHT_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while not seen():
            ended = [proxy for proxy, process in self._proxies.items() if process.poll() and proxy != self._victim]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"{p}:\n{(self._scratch / f'{p}.log').read_text()[-3000:]}" for p in self._proxies)
                raise ToolFailed("fleet", f"waited for {what}; ended meanwhile: {', '.join(ended) or 'nothing'}", logs)
            time.sleep(0.05)

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._server.connect(self._database) as connection:
            return connection.execute(query.encode(), values).fetchall()

    # --- chapters -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Configure, make a job, serve."""
        for proxy in PROXIES:
            self._configure(proxy)
        self.lanfree("init")
        self.lanfree("job", "add", "nightly", "--all", "--at", "22:00", "--zone", "Europe/Berlin", "--keep-daily", "14")
        for proxy in PROXIES:
            self._serve(proxy)
        self._wait("three proxies", lambda: len(self._alive()) == len(PROXIES), 60.0)
        self._names = dict(self._alive())
        self.claim("three proxies serve, each with a state of its own", True, ", ".join(sorted(self._names)))

    def _alive(self) -> list[tuple[str, str]]:
        return self._rows("SELECT machine, name FROM proxies WHERE gone_at IS NULL")

    def _stop_one_that_works(self) -> str:
        """Stand a proxy still while it backs up: its name in the database. Its machines may be done between the question and
        the signal: then it goes on, and the next one is asked for. How far they are is not asked: the database learns it
        every beat, and a machine as small as these may be done between two."""
        working = "SELECT proxy FROM tasks WHERE state = 'running' LIMIT 1"
        found: list[str] = []

        def stopped() -> bool:
            for (name,) in self._rows(working):
                self._victim = next(proxy for proxy, known in self._names.items() if known == name)
                self._proxies[self._victim].send_signal(signal.SIGSTOP)
                if self._held(name):
                    found.append(name)
                    return True
                self._proxies[self._victim].send_signal(signal.SIGCONT)
                self._victim = ""
            return False

        self._wait("a proxy to back up", stopped)
        return found[0]

    def _held(self, name: str) -> list[str]:
        """Machines that a proxy is backing up."""
        query = "SELECT machine_name FROM tasks WHERE state = 'running' AND proxy = %s"
        return [row[0] for row in self._rows(query, name)]

    def night(self) -> None:
        """Run the job; one proxy dies while it backs up."""
        with self._watch.watching():
            begun = time.monotonic()
            self._run = self.lanfree("job", "run", "nightly")
            dead = self._stop_one_that_works()
            process = self._proxies[self._victim]
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed = time.monotonic()
            held = self._held(dead)  # asked anew: what it sent just before it stood still may have come in since
            self._say(f"{self._victim} (process {process.pid}) was killed and does not come back")
            after = self._rows("SELECT count(*) FROM tasks WHERE state = 'waiting'")[0][0]
            self.claim("killed in the middle", bool(held), f"it had {', '.join(held)}; {after} machines waited")
            ended = "SELECT state FROM job_runs WHERE ended_at IS NOT NULL"
            self._wait("the night's end", lambda: bool(self._rows(ended)))
            took = time.monotonic()
        moved = {name: self._watch.by[name] - {dead} for name in held}
        self.claim(
            "what it had was taken over by the others",
            all(moved.values()),
            f"after {TAKEOVER:.0f} s of silence; the night took {took - begun:.1f} s, {took - killed:.1f} s of it without it",
        )

    def protected(self) -> None:
        """Each machine has its restore point, and every byte of it is right."""
        state = self._rows("SELECT state FROM job_runs")[0][0]
        tasks = self._rows("SELECT machine_name, state, message, point FROM tasks WHERE kind = 'backup'")
        done = [task for task in tasks if task[1] == "done"]
        wrong = "; ".join(f"{name}: {state} {message}" for name, state, message, _ in tasks if state != "done")
        self.claim("the run ended as done", state in {"done", "attention"}, state)
        self.claim(
            "all machines are backed up", len(done) == 5 + MORE, f"{len(done)} of {5 + MORE}{wrong and f': {wrong}'}"
        )
        points = self.lanfree("points")
        self.claim(
            "exactly one restore point a machine",
            sorted(Counter(point["machine_name"] for point in points).values()) == [1] * (5 + MORE),
            f"{len(points)} restore points",
        )
        report = self.lanfree("verify")
        self.claim("every chunk of them reads back", not report["damage"], f"{report['bytes_checked']} bytes checked")

    def limits(self) -> None:
        """No key was ever held by more tasks than it may be."""
        allowed = {"machine": 1, "proxy": SLOTS, "host": PER_HOST, "full": PER_FULL, "repository": PER_REPOSITORY}
        busiest: dict[str, tuple[int, str]] = {}
        for key, most in self._watch.most.items():
            kind = key.partition(":")[0]
            busiest[kind] = max(busiest.get(kind, (0, "")), (most, key))
        for kind, limit in allowed.items():
            most, key = busiest.get(kind, (0, ""))
            shown = key.replace(self._names.get(key.partition(":")[2], "\0"), "")
            self.claim(f"at most {limit} at once by {kind}", 0 < most <= limit, f"{most} at {shown}")
        self.claim(
            "seen by looking",
            self._watch.looks > 5 * self._watch.changes > 0,
            f"{self._watch.looks} looks, {self._watch.changes} times something else ran than at the look before",
        )

    def nothing_left(self) -> None:
        """Neither on the hosts nor in the database."""
        self.end_all()
        overlays = sorted(path.name for path in (self._lab.shared / "overlays").iterdir())
        self.claim("no snapshot is left on the hosts", not overlays, ", ".join(overlays) or "no overlay")
        found = self.lanfree("sweep", proxy=PROXIES[2])
        self.claim("nothing for a sweep to find", not found["remarks"], json.dumps(found)[:200])
        left = self._rows("SELECT name FROM shared_state WHERE name LIKE '%%/runs/%%'")
        self.claim("no run's record is left", not left, f"{len(left)} records")
        codes = {proxy: process.returncode for proxy, process in self._proxies.items() if proxy != self._victim}
        self.claim("the others end cleanly when asked", set(codes.values()) == {0}, str(codes))


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="all claims as one JSON document on stdout")
    as_json = parser.parse_args().json
    if os.geteuid() != 0:
        print("needs root: the lab makes mount namespaces", file=sys.stderr)
        return 1
    result = run(lambda line: print(line, file=sys.stderr if as_json else sys.stdout, flush=True))
    broken = [claim for claim in result.claims if not claim.holds]
    if as_json:
        print(json.dumps(asdict(result), indent=1))
    else:
        print(f"{len(result.claims) - len(broken)} of {len(result.claims)} claims hold, {result.seconds:.0f} s")
    return ATTENTION if broken else 0


if __name__ == "__main__":
    sys.exit(main())
