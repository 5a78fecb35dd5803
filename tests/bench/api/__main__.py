"""How long lists of the API take, over HTTP, with so many machines and restore points:

    python -m tests.bench.api [--machines 10000] [--points 1000000] [--requests 200] [--postgres] [--keep DIRECTORY]

A catalog is filled, the API is served by uvicorn in this process on a loopback port, and asked through one connection, with a
token, as a program would. Prints milliseconds of the wall clock (50th, 95th, 99th of a hundred), and of the processor for
client and server together, in which other work on the machine shows less. ``--keep``: fill this directory once, use it again.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
import uvicorn

from api.app import create_app
from api.auth.roles import Permission, Role
from api.auth.sessions import digest
from api.settings import WebSettings
from appliance import config
from appliance.config_web import Web
from appliance.web.desk import desk_of
from appliance.web.listening import listen
from appliance.wiring import Services
from catalog import database
from catalog.access.values import Token, User
from catalog.unit_of_work import Catalog
from tests.bench.api.filling import BEGIN, fill, machine_id, moment
from tests.integration.catalog.postgres_server import postgres_server

GOAL = 50.0
"""Milliseconds at the 95th of a hundred."""

WARM = 5
"""First requests, which fill caches and do not count."""

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "sorted -newest": {"sort": "-newest"},
    "sorted -size": {"sort": "-size"},
    "sorted host": {"sort": "host"},
    "sorted severity": {"sort": "severity"},
    "q=0123": {"q": "0123"},
    "q nothing fits": {"q": "no such machine"},
    "host": {"host": "kvm07"},
    "hypervisor": {"hypervisor": "vc1"},
    "protection failed, never": {"protection": ["failed", "never"]},
    "protection overdue": {"protection": "overdue", "sort": "-newest"},
    "state off": {"state": "off"},
    "tag": {"tag": "tag3"},
    "folder": {"folder": "/DC/vm/Team3"},
    "job": {"job": "job-03"},
}


Question = tuple[str, dict[str, Any]]
"""Path and parameters."""


class Asker:
    """One connection, and the times of what it asked."""

    def __init__(self, client: httpx.Client, requests: int) -> None:
        self._client = client
        self._requests = requests
        self.slow: list[str] = []

    def get(self, path: str, params: dict[str, Any]) -> Any:
        """The document."""
        answer = self._client.get(path, params=params)
        if answer.status_code != 200:
            raise SystemExit(f"{answer.request.url}: {answer.status_code} {answer.text}")
        return answer.json()

    def measure(self, what: str, ask: Callable[[int], Question]) -> None:
        """``ask``: the n-th question."""
        walls, processors = [], []
        for number in range(self._requests + WARM):
            path, params = ask(number)
            begin, cpu = time.perf_counter(), time.process_time()
            self.get(path, params)
            walls.append((time.perf_counter() - begin) * 1000)
            processors.append((time.process_time() - cpu) * 1000)
        walls, processors = walls[WARM:], processors[WARM:]
        p50, p95, p99 = (_of(walls, share) for share in (0.50, 0.95, 0.99))
        if p95 >= GOAL:
            self.slow.append(what)
        print(f"{what:46}{p50:8.1f} {p95:8.1f} {p99:8.1f}   {_of(processors, 0.50):8.1f} {_of(processors, 0.95):8.1f}")
        sys.stdout.flush()

    def last_page(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        """Parameters of the last one."""
        while (following := self.get(path, {**params, "limit": 1000})["next"]) is not None:
            params = {**params, "cursor": following}
        return params


def _of(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def _always(path: str, params: dict[str, Any]) -> Callable[[int], Question]:
    return lambda _: (path, params)


def machines(asker: Asker, number: int) -> None:
    """Lists of machines, their late pages and counts."""
    for what, params in FILTERS.items():
        asker.measure(f"machines, {what}", _always("/machines", params))
    for sort in ("name", "-newest", "severity"):
        params = asker.last_page("/machines", {"sort": sort})
        asker.measure(f"machines, by {sort}, last page", _always("/machines", {**params, "limit": 100}))
    asker.measure("machines by protection", _always("/machines/protection", {}))
    random = Random(1)
    for what, tail in (("one machine", ""), ("its time axis", "/timeline"), ("its points", "/restore-points")):
        asker.measure(what, lambda _, t=tail: (f"/machines/{machine_id(random.randrange(number))}{t}", {}))  # type: ignore[misc]
    asker.measure("hypervisors", _always("/hypervisors", {}))


def points(asker: Asker, number: int, each: int) -> None:
    """Lists of restore points: any page, any filter."""
    last = moment(number - 1, each - 1)
    random = Random(2)
    day = {"since": (last - timedelta(days=7)).isoformat(), "until": (last - timedelta(days=6)).isoformat()}
    middle = (BEGIN + (last - BEGIN) / 2).isoformat()
    wanted: dict[str, dict[str, Any]] = {
        "newest": {},
        "oldest": {"sort": "created_at"},
        "of a day": day,
        "full": {"level": "full"},
        "incremental, before the middle": {"level": "incremental", "until": middle},
        "application consistent": {"consistency": "application"},
        "full, application consistent": {"level": "full", "consistency": "application"},
        "held": {"held": True},
        "of a machine": {"machine": machine_id(number // 2)},
        "of a machine, full": {"machine": machine_id(number // 2), "level": "full"},
    }
    for what, params in wanted.items():
        asker.measure(f"points, {what}", _always("/restore-points", params))

    def somewhere(_: int) -> Question:
        return "/restore-points", {"until": (BEGIN + random.random() * (last - BEGIN)).isoformat()}

    asker.measure("points, a page of anywhere", somewhere)


def within(asker: Asker, who: str) -> None:
    """What somebody sees who does not reach all machines."""
    asker.measure(f"machines, {who}", _always("/machines", {}))
    asker.measure(f"machines by protection, {who}", _always("/machines/protection", {}))
    asker.measure(f"points, {who}", _always("/restore-points", {}))
    asker.measure(f"points, full, {who}", _always("/restore-points", {"level": "full"}))


def token(services: Services, name: str, reach: tuple[str, ...]) -> str:
    """Of a new user."""
    now, secret = datetime.now(UTC), f"lft_{secrets.token_urlsafe(32)}"
    with services.access.transaction() as unit:
        unit.users.add(User(name, name, None, (Role.ADMINISTRATOR.value,), reach, now))
        words = tuple(permission.value for permission in Permission)
        unit.tokens.add(Token(name, "bench", name, digest(secret), words, reach, now))
    return secret


@contextmanager
def served(services: Services) -> Iterator[str]:
    """The API on a free port of loopback."""
    app = create_app(desk_of(services), WebSettings(console=False, https=False))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with listen(Web(address="127.0.0.1:0")) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.05)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1"
        finally:
            server.should_exit = True
            thread.join()


def prepared(base: Path, url: str | None, number: int, count: int) -> Services:
    """An appliance whose catalog is filled, unless it is already."""
    file = base / "lanfree.toml"
    file.write_text(
        f'[repository]\npath = "{base}/repository"\nunencrypted = true\n[state]\ndirectory = "{base}/state"\n'
        + (f'[database]\nurl = "{url}"\n' if url else "")
    )
    services = Services(config.load(file))
    services.make_repository()
    Catalog(services.catalog_url).close()
    engine = database.open_engine(services.catalog_url)
    with services.catalog.transaction(write=False) as unit:
        known = bool(unit.inventory.hypervisors())
    if not known:
        begin = time.perf_counter()
        fill(engine, number, count)
        print(f"filled in {time.perf_counter() - begin:.0f} s")
    engine.dispose()
    return services


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--postgres", action="store_true", help="A private server instead of SQLite.")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        base = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-api-")))
        base.mkdir(exist_ok=True)
        url = None
        if options.postgres:
            server = stack.enter_context(postgres_server())
            url = server.url(server.database())
        services = stack.enter_context(prepared(base, url, options.machines, options.points))
        address = stack.enter_context(served(services))
        run = secrets.token_hex(3)
        print(f"{options.machines} machines, {options.points} restore points, {'PostgreSQL' if url else 'SQLite'}")
        print(f"{'milliseconds':46}{'p50':>8} {'p95':>8} {'p99':>8}   {'cpu p50':>8} {'cpu p95':>8}")
        slow: list[str] = []
        for who, reach in (("everybody", ("*",)), ("reach db-*", ("db-*",)), ("reach one", ("web-00400",))):
            secret = token(services, f"{who.replace(' ', '-').replace('*', 'x')}-{run}", reach)
            headers = {"Authorization": f"Bearer {secret}"}
            with httpx.Client(base_url=address, headers=headers, timeout=120) as client:
                asker = Asker(client, options.requests)
                if reach == ("*",):
                    machines(asker, options.machines)
                    points(asker, options.machines, options.points // options.machines)
                else:
                    within(asker, who)
            slow += asker.slow
        print(f"slower than {GOAL:.0f} ms at p95: {', '.join(slow) or 'nothing'}")


if __name__ == "__main__":
    main()
