"""How long ``lanfree coverage`` and the preview of ``lanfree prune`` take for 10,000 machines with three restore points each:

    python tests/bench/jobs/bench_coverage.py [machines]

The manifests are real ones in a directory; the images that they name are one image, which neither command looks at.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from time import perf_counter

from appliance.cli.coverage import _told
from appliance.cli.output import Output
from appliance.keeping import coverage_csv
from appliance.keeping.covering import coverage
from appliance.keeping.pruning import prune
from appliance.wiring import Services
from catalog.jobs.policy import Keep, Policy, Selection
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.model import Reason, ReasonCode
from tests.unit.appliance.keeping.sealed_points import NOW, appliance, seal

JOBS = 20
POINTS = 3


def fill(services: Services, machines: int) -> None:
    """Machines, jobs that select all but one in a hundred, restore points, and the catalog's records of runs."""
    site = MemoryHypervisor()
    template = seal(services.repository, NOW - timedelta(days=POINTS), machine="template")
    for number in range(machines):
        site.add(f"vm-{number % JOBS:02}-{number}", {"vda": b""}, identity=f"id-{number}")
        for day in range(POINTS, 0, -1):
            moment = NOW - timedelta(days=day, seconds=-number)
            point = replace(
                template,
                id=f"{moment:%Y%m%dT%H%M%S.%f}Z-{number:08x}",
                machine=f"id-{number}",
                machine_name=f"vm-{number}",
                created_at=moment,
                reasons=(Reason(ReasonCode.MADE_BY_JOB, f"job-{number % JOBS:02}"),),
            )
            services.repository.ledger.add(point)
    with services.jobs.transaction() as unit:
        for number in range(JOBS):
            select = Selection(include=(f"name=vm-{number:02}-*",), exclude=("name=*99",))
            unit.jobs.add(f"job-{number:02}", Policy(select=select, retention=Keep(last=2)), NOW)
    with services.catalog.transaction() as unit:
        for number in range(machines):
            unit.runs.start(f"r{number}", f"id-{number}", f"vm-{number}", "backup", NOW)
    # A listing syncs directories that changed within minutes; those of a night are older when somebody asks.
    for folder in services.settings.repository.path.joinpath("points").iterdir():
        os.utime(folder, (0, 0))
    services.__dict__["hypervisor"] = Sites([site], lambda _configuration, _new: None)


def timed(what: str, work: Callable[[], object]) -> None:
    begin = perf_counter()
    work()
    print(f"{what:<60} {perf_counter() - begin:8.2f} s")


def main(machines: int) -> None:
    """Print a line for each."""
    directory = Path(tempfile.mkdtemp(prefix="lanfree-coverage-"))
    try:
        with appliance(directory / "site") as services:
            timed(f"making {machines} machines with {POINTS} restore points each", lambda: fill(services, machines))
            timed("coverage", lambda: coverage(services))
            found = coverage(services)
            with redirect_stdout(StringIO()):
                begin = perf_counter()
                Output(as_json=False).result(None, *_told(found, found.machines))
                table = perf_counter() - begin
                begin = perf_counter()
                coverage_csv.write(sys.stdout, found.machines, found.former)
                lines = perf_counter() - begin
            print(f"{'coverage as a table, as CSV':<60} {table:8.2f} s {lines:8.2f} s")
            timed("preview of retention", lambda: prune(services, apply=False, told=print))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
