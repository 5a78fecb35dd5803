"""Several proxies, their site and their databases, for tests that kill some of them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import update

from catalog.jobs.policy import Policy, Schedule, Selection
from catalog.jobs.tables import TaskRow
from catalog.jobs.values import Job, JobRun, JobRunState, Task, TaskState
from proxy.repository import PosixStore, create
from proxy.units import KiB
from tests.integration.serving.directory_site import DirectorySite
from tests.integration.serving.proxy_process import services_on

CONFIGURATION = """
[repository]
path = "{base}/repository"
unencrypted = true
[state]
directory = "{base}/{state}"
[files]
index = false
[proxy]
name = "{state}"
slots = 3
beat = 0.2
fence = 1.5
takeover = 3.0
[backup]
workers = 1
segment = 262144
[limits]
per_host = 2
per_place = 3
full_per_host = 2
[protect]
enabled = false
{more}
"""

ENDED = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.STOPPED})

LONG = 90.0
"""Seconds for anything to come true on a busy machine."""


def until(true: Callable[[], object], what: str, within: float = LONG) -> None:
    """Look ten times a second."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.1)


@dataclass
class Fleet:
    """``base``: for everything; ``more``: lines of the configuration file of every proxy."""

    base: Path
    more: str = ""
    hosts: int = 2
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.site = DirectorySite(self.base / "site", [f"h{n + 1}" for n in range(self.hosts)])
        self.services = services_on(self.configuration("looking-on"), self.site)
        place = self.base / "repository"
        place.mkdir(exist_ok=True)
        # Small packs: what is stored before a kill is then more than one that was not full yet.
        create(PosixStore(place), secret=None, chunk_size=64 * KiB, pack_size=256 * KiB).close()

    def configuration(self, state: str) -> Path:
        """Of a proxy with this state directory; without a [database] those that share jobs share it."""
        file = self.base / f"{state}.toml"
        file.write_text(CONFIGURATION.format(base=self.base, state=state, more=self.more))
        return file

    def machines(self, number: int, size: int = 64 * 1024) -> None:
        """On all hosts in turn, and on as many places."""
        for each in range(number):
            data = bytes([each % 251 + 1]) * size
            host, place = f"h{each % self.hosts + 1}", f"p{each // self.hosts % self.hosts + 1}"
            self.site.add(f"m{each:03d}", {"vda": data}, host=host, place=place)

    def noise(self, name: str, size: int) -> None:
        """A machine whose disk neither compresses nor repeats itself."""
        self.site.add(name, {"vda": os.urandom(size)})

    def close_window(self) -> None:
        """Now, for the run that goes on, as if its policy had said so when it began."""
        now = datetime.now(UTC)
        with self.services.jobs.transaction() as unit:
            (run,) = unit.runs.under_way()
            unit.runs.change(run.id, deadline=now)
            unit.session.execute(update(TaskRow).where(TaskRow.job_run == run.id).values(deadline=now))

    def job(self, name: str = "nightly", *, due: bool = True, **policy: object) -> Job:
        """That is due now, every machine in it, unless the policy says something else."""
        now = datetime.now(UTC)
        said = {"select": Selection(include=("",)), "retries": {"attempts": 3, "wait": 0.5}, **policy}
        if due:
            said["schedule"] = Schedule(at=((now - timedelta(minutes=1)).time().replace(second=0, microsecond=0),))
        with self.services.jobs.transaction() as unit:
            return unit.jobs.add(name, Policy.model_validate(said), now - timedelta(minutes=5))

    def start(self, *options: str, state: str = "looking-on") -> "subprocess.Popen[str]":
        """A proxy that serves."""
        log = (self.base / "log").open("a")
        argv = [sys.executable, "-W", "ignore", "-m", "tests.integration.serving.proxy_process"]
        argv += [str(self.configuration(state)), str(self.site.directory), *options]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ})
        self.processes.append(process)
        return process

    def end(self, process: "subprocess.Popen[str]") -> int:
        """Cleanly; its exit code."""
        process.terminate()
        process.communicate(timeout=LONG)
        return process.returncode

    def runs(self) -> list[JobRun]:
        """Newest first."""
        with self.services.jobs.transaction(write=False) as unit:
            return list(unit.runs.list())

    def tasks(self, run: str | None = None) -> list[Task]:
        """Of a run, else of the newest there is."""
        run = run or next((run.id for run in self.runs()), "none")
        with self.services.jobs.transaction(write=False) as unit:
            return list(unit.tasks.of_run(run))

    def running(self) -> list[Task]:
        """Now."""
        with self.services.jobs.transaction(write=False) as unit:
            return list(unit.tasks.running())

    def ended(self) -> bool:
        """Whether there is a run, and all have ended."""
        runs = self.runs()
        return bool(runs) and all(run.state is not JobRunState.RUNNING for run in runs)

    def serves(self, process: "subprocess.Popen[str]") -> bool:
        """Whether it got so far as to be on the list of proxies."""
        with self.services.jobs.transaction(write=False) as unit:
            return any(f"-{process.pid}-" in facts.name for facts in unit.proxies.list())

    def idle(self) -> bool:
        """Whether a clean end finds nothing under way: every process that is alive is told to end, and does."""
        return all(self.end(process) == 0 for process in self.processes if process.poll() is None)

    def points(self) -> list[str]:
        """Names of machines of all restore points, sorted."""
        return sorted(point.machine_name for point in self.services.repository.points())

    def said(self) -> str:
        """What all proxies wrote to their logs."""
        return (self.base / "log").read_text()

    def close(self) -> None:
        """End whatever still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.services.close()
