"""A catalog of many machines and restore points, made fast: rows as the catalog's own code would have left them."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from sqlalchemy import Engine, Table, insert, text

from catalog.tables import HypervisorRow, ImageRow, MachineFactsRow, MachineRow, RestorePointRow
from proxy.model import Consistency, Level, PowerState

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

HOSTS, CLUSTERS, FOLDERS, TAGS = 40, 8, 60, 12

_AT_ONCE = 20_000


def machine_id(number: int) -> str:
    """Spread like real identities are: neighbours in the list are not neighbours in the index."""
    return f"{(number * 2654435761) % 2**32:08x}-0000-4000-8000-{number:012x}"


def fill(engine: Engine, machines: int, points: int) -> None:
    """``points`` of ``machines``, one disk each; a third of the machines in a vCenter; all that lists filter by, in use."""
    each = points // machines
    with engine.begin() as connection:
        load(connection, HypervisorRow.__table__, _hypervisors())
        load(connection, MachineRow.__table__, (_machine(n, each) for n in range(machines)))
        load(connection, MachineFactsRow.__table__, (_facts(n) for n in range(machines)))
        load(connection, RestorePointRow.__table__, _points(machines, each))
        load(connection, ImageRow.__table__, _images(machines, each))
    with engine.connect() as connection:  # what a database that grew day by day has long known
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))


def load(connection: Any, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    """In large pieces; PostgreSQL by ``COPY``."""
    if connection.dialect.name == "postgresql":
        _copy(connection, table, rows)
        return
    some: list[dict[str, Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == _AT_ONCE:
            connection.execute(insert(table), some)
            some = []
    if some:
        connection.execute(insert(table), some)


def _copy(connection: Any, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    first = next(rows)
    quoted = ", ".join(f'"{name}"' for name in first)
    with (
        connection.connection.driver_connection.cursor() as cursor,
        cursor.copy(f"COPY {table.name} ({quoted}) FROM STDIN") as copy,
    ):
        for row in chain([first], rows):
            copy.write_row([json.dumps(v) if isinstance(v, list | dict) else v for v in row.values()])


def _hypervisors() -> Iterator[dict[str, Any]]:
    for name, kind in (("vc1", "vcenter"), *((f"kvm{n:02d}", "kvm") for n in range(HOSTS))):
        yield {"name": name, "kind": kind, "looked_at": BEGIN, "answered_at": BEGIN, "error": "", "hint": ""}


def moment(machine: int, number: int) -> datetime:
    """Of a machine's restore point: a day apart, machines a few seconds."""
    return BEGIN + timedelta(days=number, seconds=machine * 7)


def point_id(machine: int, number: int) -> str:
    """Sorts by time, as real ones do."""
    return f"{moment(machine, number):%Y%m%dT%H%M%S.%fZ}-{machine:08x}"


def name_of(number: int) -> str:
    """Of a machine."""
    return f"{('web', 'db', 'app', 'Win')[number % 4]}-{number:05d}"


def _machine(number: int, points: int) -> dict[str, Any]:
    newest = moment(number, points - 1) if number % 50 else None
    vcenter = number % 3 == 0
    states = [PowerState.RUNNING, PowerState.RUNNING, PowerState.RUNNING, PowerState.OFF]
    gone = number % 97 == 5
    return {
        "id": machine_id(number),
        "name": name_of(number),
        "folded": name_of(number).casefold(),
        "host": f"esx{number % HOSTS:02d}" if vcenter else f"kvm{number % HOSTS:02d}",
        "hypervisor": "vc1" if vcenter else f"kvm{number % HOSTS:02d}",
        "cluster": f"Cluster{number % CLUSTERS}" if vcenter else "",
        "folder": f"/DC/vm/Team{number % FOLDERS}/App{number % 7}" if vcenter else "",
        "tags": f"\nbackup:tag{number % TAGS}\n" if vcenter else "",
        "state": None if gone else states[number % 4].value,
        "agent": number % 5 > 0,
        "template": False,
        "size": (number % 500 + 1) * 2**30,
        "first_seen": BEGIN,
        "seen_at": BEGIN,
        "gone_at": BEGIN if gone else None,
        "newest_at": newest,
        "newest_point": point_id(number, points - 1) if newest else None,
        "oldest_at": moment(number, 0) if newest else None,
        "points": points if newest else 0,
        "stored": points * 2**20 if newest else 0,
        "objective": 26.0,
        "due_at": newest + timedelta(hours=26 if number % 20 else 2) if newest else None,
        "excluded": "scratch" if number % 101 == 7 else "",
        "failed_at": newest + timedelta(hours=1) if newest and number % 31 == 3 else None,
        "failure": "snapshot-failed" if newest and number % 31 == 3 else None,
        "failure_message": "the datastore is full" if newest and number % 31 == 3 else None,
        "jobs": [f"job-{number % 20:02d}"],
    }


def _facts(number: int) -> dict[str, Any]:
    disk = {"key": "vda", "size": 2**30, "format": "raw", "location": "iqn.x/1", "excluded": "", "detail": ""}
    return {"machine_id": machine_id(number), "disks": [disk], "pool": "", "datastores": [], "attributes": {}}


def _points(machines: int, each: int) -> Iterator[dict[str, Any]]:
    reason = [{"code": "first-backup", "detail": ""}]
    consistencies: Sequence[str] = [c.value for c in Consistency]
    for number in range(each):
        for machine in range(machines):
            at = moment(machine, number)
            yield {
                "id": point_id(machine, number),
                "machine_id": machine_id(machine),
                "position": int(at.timestamp() * 1_000_000),
                "machine_name": name_of(machine),
                "host": f"kvm{machine % HOSTS:02d}",
                "hypervisor": "kvm",
                "run": f"r{machine}-{number}",
                "parent": point_id(machine, number - 1) if number else None,
                "created_at": at,
                "sealed_at": at + timedelta(minutes=3),
                "level": (Level.FULL if number == 0 else Level.INCREMENTAL).value,
                # Application-consistent ones are few, and old: the worst that a filter can meet.
                "consistency": consistencies[1 if number > 1 else 0 if machine % 100 == 0 else 2],
                "frozen_seconds": 0.5,
                "reasons": reason,
                "files_indexed_at": at if number % 2 else None,
                "index_reasons": [],
                "held": machine % 1000 == 1 and number == 3,
                "health": "unknown",
                "verified_at": None,
            }


def _images(machines: int, each: int) -> Iterator[dict[str, Any]]:
    reasons = [{"code": "changes-from-bitmap", "detail": ""}]
    for number in range(each):
        for machine in range(machines):
            yield {
                "point_id": point_id(machine, number),
                "key": "vda",
                "size": 2**35,
                "level": "full",
                "transport": "san",
                "source": "naa.6001405",
                "change_id": "lanfree-1",
                "bytes_read": 2**30,
                "bytes_new": 2**28,
                "bytes_stored": 2**20,
                "index": "indexes/x",
                "digest": "0" * 32,
                "reasons": reasons,
            }
