"""What it costs that the appliance protects itself: ``python -m tests.bench.jobs.bench_protection [--files N] [--postgresql]``.

A catalog of so many files; then one restore point of it, another after one file in a hundred changed, and one when nothing did.
The repository is in the clear and on the same disk. ``--postgresql``: the same after the databases moved there.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appliance import config
from appliance.protection.backup import protect
from appliance.wiring import Services
from catalog.portable import Place, transfer
from mounter.ports import FileType
from mounter.walk import FileRecord
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.units import format_size
from tests.integration.catalog.postgres_server import postgres_server

START = datetime(2026, 11, 1, 22, tzinfo=UTC)
BATCH, IN_A_DIRECTORY, CHANGED = 1000, 100, 100
CONFIGURATION = """
[repository]
path = "{0}/repository"
unencrypted = true
[state]
directory = "{0}/state"
"""


def night(number: int, files: int) -> Iterator[list[FileRecord]]:
    """One file in a hundred is another each night."""
    for first in range(0, files, BATCH):
        yield [record(n, number if n % CHANGED == 0 else 0) for n in range(first, min(first + BATCH, files))]


def record(number: int, version: int) -> FileRecord:
    path = b"/srv/data/%05d/report-%08d.pdf" % (number // IN_A_DIRECTORY, number)
    moment = 1_700_000_000_000_000_000 + number * 1_000 + version
    return FileRecord("root", path, FileType.FILE, 1000 + version, 0o644, 0, 0, moment, moment, number, None)


def index(services: Services, number: int, files: int) -> None:
    image = ImageInfo("vda", 1 << 40, "i", "d", "san", "naa.1", 0, 0, 0)
    point = RestorePoint(
        *(f"p{number}", "m1", "files", "h1", f"r{number}", START + timedelta(days=number)),
        *(Level.FULL, Consistency.CRASH, (image,)),
        configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
    )
    with services.catalog.transaction() as unit:
        unit.restore_points.add(point)
    services.catalog.index(point.id, night(number, files))


def measured(services: Services, what: str) -> None:
    begin = time.perf_counter()
    report = protect(services)
    seconds = time.perf_counter() - begin
    stored = format_size(sum(target.bytes_stored for target in report.targets))
    memory = format_size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    done = f"{stored} stored" if report.made else "nothing made"
    print(f"{what:<32} {seconds:6.1f} s  {format_size(report.size)}, {done}, {memory} of memory at most")


def trial(path: Path, files: int, kind: str) -> None:
    with Services(config.load(path)) as services:
        services.make_repository()
        measured(services, f"{kind}: the first")
        index(services, 2 if kind == "SQLite" else 3, files)
        measured(services, f"{kind}: one file in a hundred")
        measured(services, f"{kind}: unchanged")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "lanfree.toml"
        path.write_text(CONFIGURATION.format(directory))
        with Services(config.load(path)) as services:
            index(services, 1, options.files)
        trial(path, options.files, "SQLite")
        if not options.postgresql:
            return
        with postgres_server() as server:
            url, begin = server.url(server.database()), time.perf_counter()
            rows = sum(transfer(Place(f"sqlite:///{directory}/state/catalog.db"), Place(url)).values())
            print(f"{f'to PostgreSQL: {rows} rows':<32} {time.perf_counter() - begin:6.1f} s")
            path.write_text(f'{path.read_text()}[database]\nurl = "{url}"\n')
            trial(path, options.files, "PostgreSQL")


if __name__ == "__main__":
    main()
