"""Whoever reaches some machines only is told nothing of the others: by no GET of the API, whatever it is asked for."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import PUBLIC
from api.asgi import PREFIX
from api.auth.roles import Role
from api.openapi import operations
from appliance.serving import by_command
from appliance.web.asking import ask
from catalog.jobs.values import Task, TaskKind, TaskState
from tests.unit.api.api_site import ApiSite, Callers
from tests.unit.api.guest_volumes import Guests, volume

pytestmark = pytest.mark.slow

HIDDEN = "secret-9"

SLOW = f"{PREFIX}/impact/now"
"""It measures for seconds; what it measures are hosts and places."""


class Known:
    """What there is: machines in reach and out of it, each with restore points, files and work."""

    def __init__(self, site: ApiSite) -> None:
        guests = Guests(site)
        services = site.services
        job = site.job("nightly", select={"include": ["name=*"]})
        run = by_command.begin_now(services, job)
        self.values: dict[str, list[str]] = {"name": [job.name, "repository"], "run": [run.id]}
        self.hidden = [HIDDEN]
        for name in ("db-1", HIDDEN):
            machine = site.machine(name)
            points = [site.point(machine, ago=timedelta(hours=hours)) for hours in (30, 1)]
            for point in points:
                root = volume()
                root.add_file(b"/etc/hosts-" + name.encode(), str(point.created_at).encode())
                guests.hold(point, root, index=True)
            task = Task(
                f"{run.id}-{name}", run.id, TaskKind.BACKUP, TaskState.WAITING, machine=machine, machine_name=name
            )
            with services.jobs.transaction() as unit:
                unit.tasks.add([task])
                unit.runs.change(run.id, selected=2)
            asked = ask(services, f"admin about {name}", TaskKind.BACKUP, {}, machine=(machine, name))
            services.catalog.audit.record(
                "admin", "browse", machine, points[0].id, {"name": name}, at=datetime.now(UTC)
            )
            made = [machine, *(point.id for point in points), task.id, asked.id]
            self._add(machine, [point.id for point in points], [task.id, asked.id])
            if name == HIDDEN:
                self.hidden += made

    def _add(self, machine: str, points: list[str], tasks: list[str]) -> None:
        for name, values in (
            ("machine", [machine]),
            ("point", points),
            ("before", points),
            ("after", points),
            ("task", tasks),
        ):
            self.values.setdefault(name, []).extend(values)

    def questions(self) -> list[str]:
        """What lists are asked, whether or not they take such a filter."""
        machine, point = self.hidden[1:3]
        everything = "q=hosts&name=hosts&path=/&path_id=&hours=48&limit=1000"
        return ["", everything, f"{everything}&machine={machine}", f"{everything}&point={point}&restore_point={point}"]

    def addresses(self, path: str) -> Iterator[str]:
        """All that the parameters of a path can stand for."""
        names = re.findall(r"\{([^}]+)\}", path)
        for chosen in product(*(self.values.get(name, ["x"]) for name in names)):
            yield path.format(**dict(zip(names, chosen, strict=True)))


@pytest.fixture
def known(site: ApiSite, app: FastAPI) -> Iterator[Known]:
    app.state.web.ending.set()  # streams end behind what they tell first
    yield Known(site)
    app.state.web.ending.clear()
    app.state.desk.mounts.close()


def told(client: TestClient, address: str, hidden: list[str]) -> list[str]:
    """What an answer tells that it should not. A refusal may repeat what it was asked for."""
    answer = client.get(address)
    assert answer.status_code < 500, f"{address}: {answer.text}"
    said = answer.text + json.dumps(dict(answer.headers))
    return [word for word in hidden if word in said and (answer.status_code < 400 or word not in address)]


def listings(app: FastAPI) -> list[str]:
    """Paths of all GETs that somebody has to be known for."""
    return [
        path
        for method, path, _ in operations(app)
        if method == "GET" and path.startswith(PREFIX) and (method, path) not in PUBLIC and path != SLOW
    ]


def test_no_answer_names_a_machine_out_of_reach(app: FastAPI, site: ApiSite, known: Known) -> None:
    callers = Callers(app, site.services)
    limited = callers.client(Role.ADMINISTRATOR, machines=("db-*",), name="limited")
    everything = callers.client(Role.ADMINISTRATOR, name="everything")
    wrong: list[str] = []
    named: set[str] = set()
    for path, asked in product(listings(app), known.questions()):
        for address in (f"{address}?{asked}" for address in known.addresses(path)):
            wrong += [f"{address} tells {word}" for word in told(limited, address, known.hidden)]
            if told(everything, address, known.hidden):
                named.add(path.removeprefix(PREFIX))
    assert not wrong, "\n".join(wrong)
    # So that it is seen to look: who reaches everything is told by all of these.
    lists = {"/machines", "/restore-points", "/tasks", "/job-runs/{run}/tasks", "/audit", "/files/search", "/coverage"}
    assert lists <= named
