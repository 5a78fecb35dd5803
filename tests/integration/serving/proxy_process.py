"""One proxy as a process of its own: ``lanfree serve`` on a directory site, with a place to be killed at.

    python -m tests.integration.serving.proxy_process CONFIGURATION SITE [--kill "before seal"] [--delay SECONDS]
                                                      [--backup MACHINE] [--until FILE]

``--kill``: the first process that comes there kills itself (9), before or after the step of this name; a file in the site's
directory says that it was. Prints "serving" when it does. ``--backup``: by hand, of one machine, and no more.
``--until``: reads nothing before this file is there.
``--shape``: as another version of the software, see ``Engine``.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from appliance import config, operations, workflows
from appliance.serving import engine, service
from appliance.serving.engine import Engine
from appliance.wiring import Services
from appliance.workflows import running
from proxy.backup import BackupRequest
from proxy.errors import LanfreeError
from proxy.hypervisor.several import Sites
from proxy.transport.memory import Faults, MemoryTransport
from tests.integration.serving.directory_site import DirectorySite


class Held(Faults):
    """Every call waits until a file is there."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def call(self, name: str, offset: int = 0, length: int = 0) -> None:
        super().call(name, offset, length)
        while not self._file.exists():
            time.sleep(0.05)


def services_on(configuration: Path, site: DirectorySite, faults: Faults | None = None) -> Services:
    """A wired appliance whose machines are those of the site. ``faults``: of whoever reads their disks."""
    services = Services(config.load(configuration))
    services.__dict__["hypervisor"] = sites = Sites([site], lambda _configuration, _new: site)
    services.__dict__["_sites"] = lambda _point=None: sites  # what restores ask
    services.__dict__["transports"] = (MemoryTransport(site.disk_bytes, faults=faults),)
    return services


def die(mark: Path) -> None:
    """Once: whoever comes here later goes on."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(point: str, mark: Path) -> None:
    """Let the engine die there."""
    when, _, step = point.partition(" ")
    plain = Engine.step

    def deadly(self: Engine, name: str, function: Any, /, *arguments: Any) -> Any:
        def cut(*given: Any) -> Any:
            if when == "before" and name == step:
                die(mark)
            result = function(*given)
            if when == "in" and name == step:
                die(mark)  # its work is done, and nobody has written that down
            return result

        result = plain(self, name, cut, *arguments)
        if when == "after" and name == step:
            die(mark)
        return result

    Engine.step = deadly  # type: ignore[method-assign]


def by_hand(services: Services, name: str) -> None:
    """What ``lanfree backup NAME`` does; prints the restore point, or the code of the error and what it says."""
    with running(services, lambda remark: print(remark, file=sys.stderr)) as known:
        machine = operations.machine_named(services, name)
        request = BackupRequest(operations.new_run("b"), machine.id)
        try:
            print(known.back_up(request).point.machine_name)
        except LanfreeError as error:
            print(error.code, error.message)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("configuration", type=Path)
    parser.add_argument("site", type=Path)
    parser.add_argument("--kill", default="")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--backup", default="")
    parser.add_argument("--until", type=Path)
    parser.add_argument("--shape", default=engine.SHAPE)
    options = parser.parse_args()
    engine.SHAPE = workflows.SHAPE = options.shape  # type: ignore[misc]
    if options.kill:
        kill_at(options.kill, options.site / f"killed {options.kill}")
    site = DirectorySite(options.site)
    faults = Held(options.until) if options.until else Faults(delay=options.delay)
    with services_on(options.configuration, site, faults) as services:
        signal.signal(signal.SIGTERM, lambda *_: services.cancelled.set())
        if options.backup:
            by_hand(services, options.backup)
            return
        print("serving", flush=True)
        begin = time.monotonic()
        service.serve(services)
        print(f"ended after {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
