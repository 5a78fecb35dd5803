"""What lies on a file server of the estate: enough to fill pages, in two nights that differ."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from catalog.unit_of_work import Catalog
from mounter.ports import FileType, Volume, VolumeState
from mounter.walk import FileRecord
from proxy.model import RestorePoint
from proxy.units import GiB, KiB, MiB

_VOLUME = "0f4a9c1e-3f0b-4f53-9a8e-0d7a3cf1b1a0"

_FOLDERS = {
    "/srv/shares/Accounting": {
        "2026-10 balance.xlsx": 412 * KiB,
        "2026-11 forecast.xlsx": 538 * KiB,
        "Invoices October.pdf": 6 * MiB,
        "Payroll.ods": 221 * KiB,
        "Year end checklist.docx": 64 * KiB,
    },
    "/srv/shares/Accounting/2025": {"Annual report.pdf": 11 * MiB, "Ledger.ods": 3 * MiB},
    "/srv/shares/Design": {"Brochure.indd": 214 * MiB, "Logo.svg": 18 * KiB, "Trade fair stand.blend": 871 * MiB},
    "/srv/shares/Engineering": {"Gearbox v7.step": 146 * MiB, "Test bench.csv": 42 * MiB},
    "/srv/shares/Sales": {"Customers.ods": 914 * KiB, "Offers 2026.docx": 377 * KiB},
    "/etc/samba": {"smb.conf": 4 * KiB},
}

_NEW = "2026-11 forecast.xlsx"
"""Not there in the older night."""


def index_two(catalog: Catalog, older: RestorePoint, newer: RestorePoint) -> None:
    """List the files of two restore points of one machine."""
    for point in (older, newer):
        records = list(_records(point.created_at, everything=point is newer))
        volume = Volume(
            _VOLUME, "/dev/vdb1", "xfs", "shares", _VOLUME, 6000 * GiB, "/", state=VolumeState.CLEAN,
            state_detail="clean log",
        )  # fmt: skip
        catalog.index(point.id, [records], [volume])


def _records(moment: datetime, *, everything: bool) -> Iterator[FileRecord]:
    number = 128
    directories: set[str] = set()
    for folder in _FOLDERS:
        parts = folder.strip("/").split("/")
        directories.update("/" + "/".join(parts[: n + 1]) for n in range(len(parts)))
    for directory in sorted(directories):
        number += 1
        yield _record(directory, FileType.DIRECTORY, 4 * KiB, moment - timedelta(days=3), number)
    for folder, files in _FOLDERS.items():
        for name, size in files.items():
            number += 1
            changed = moment - timedelta(days=number % 17, hours=number % 7)
            if everything or name != _NEW:
                yield _record(f"{folder}/{name}", FileType.FILE, size, changed, number)


def _record(path: str, kind: FileType, size: int, changed: datetime, number: int) -> FileRecord:
    moment = int(changed.timestamp()) * 1_000_000_000
    mode = 0o755 if kind is FileType.DIRECTORY else 0o640
    return FileRecord(_VOLUME, path.encode(), kind, size, mode, 1000, 1000, moment, moment, number)
