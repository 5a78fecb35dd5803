"""Files over time, and the audit log, as a user asks for them."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance import config as configuration
from appliance.cli import app, history, site  # noqa: F401  # commands register themselves
from appliance.wiring import Services
from mounter.ports import FileType, Volume
from mounter.walk import FileRecord
from proxy.model import RestorePoint
from tests.integration.appliance.point_maker import PointMaker

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]


@dataclass(frozen=True)
class History:
    """Three restore points of ``web``: a log that grows, a file that comes, one that goes."""

    points: tuple[RestorePoint, ...]
    state: Path


@pytest.fixture
def recorded(lanfree: Lanfree, tmp_path: Path) -> History:
    code, _, said = lanfree(
        "init", "--unencrypted", "--repository", str(tmp_path / "r"), "--state", str(tmp_path / "s")
    )
    assert code == 0, said
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    contents = ({b"/log/a": 10, b"/old": 5}, {b"/log/a": 30, b"/old": 5}, {b"/log/a": 70, b"/new": 7})
    volume = Volume("v", "/dev/sda1", "ext4", "", "", 1 << 20, "/")
    with Services(configuration.load(tmp_path / "lanfree.toml")) as services:
        maker = PointMaker(services.repository)
        points = tuple(maker.make("web", {"vda": image}) for _ in contents)
        for point, files in zip(points, contents, strict=True):
            with services.catalog.transaction() as unit:
                unit.restore_points.add(point)
            services.catalog.index(point.id, [[_record(p, size) for p, size in files.items()]], [volume])
    return History(points, tmp_path / "s")


def _record(path: bytes, size: int) -> FileRecord:
    return FileRecord("v", path, FileType.FILE, size, 0o644, 0, 0, 10**18 + size, 1, 12)


def test_the_versions_of_a_file_name_the_restore_points_that_hold_them(recorded: History, lanfree: Lanfree) -> None:
    first, second, third = (p.id for p in recorded.points)
    code, document, said = lanfree("files", "versions", "web", "/log/a")
    assert code == 0, said
    assert [(d["version"]["size"], d["held_by"]) for d in document] == [(70, [third]), (30, [second]), (10, [first])]
    code, document, _ = lanfree("files", "holding", "web", "/old")
    assert (code, [d["held_by"] for d in document]) == (0, [[first, second]])
    code, document, _ = lanfree("files", "holding", "web", "/log/a", "--point", second)
    assert [(d["version"]["size"], d["held_by"]) for d in document] == [(30, [second])]
    code, document, _ = lanfree("files", "holding", "web", "/old", "--point", third)
    assert (code, document["error"]["code"]) == (1, "guest-file-not-found")
    code, document, _ = lanfree("files", "versions", "web", "/never")
    assert (code, document["error"]["code"]) == (1, "guest-file-not-found")


def test_two_restore_points_are_compared_with_sums(recorded: History, lanfree: Lanfree) -> None:
    first, _, third = (p.id for p in recorded.points)
    code, document, said = lanfree("files", "diff", first, third)
    assert code == 0, said
    told = [(c["kind"], c["path"], c["growth"]) for c in document["changes"]]
    assert told == [("added", "/new", 7), ("removed", "/old", -5), ("changed", "/log/a", 60)]
    assert (document["sums"]["added"], document["sums"]["bytes_removed"]) == (1, 5)
    code, document, said = lanfree("files", "diff", third, first, "/log", "--limit", "1")
    assert [(c["kind"], c["growth"]) for c in document["changes"]] == [("changed", -60)]


def test_what_grew_is_told_by_file_by_directory_and_over_time(recorded: History, lanfree: Lanfree) -> None:
    code, document, said = lanfree("files", "growth", "web")
    assert code == 0, said
    assert [(t["files"], t["bytes"]) for t in document["totals"]] == [(2, 15), (2, 35), (2, 77)]
    assert [(f["path"], f["growth"]) for f in document["files"]] == [("/log/a", 60), ("/new", 7)]
    assert [(d["path"], d["growth"]) for d in document["directories"]] == [("/", 62), ("/log", 60)]


def test_every_question_about_files_is_in_the_audit_log_and_a_changed_entry_is_found(
    recorded: History, lanfree: Lanfree
) -> None:
    lanfree("files", "versions", "web", "/log/a")
    lanfree("files", "diff", recorded.points[0].id, recorded.points[1].id)
    code, document, _ = lanfree("access-log", "list", "--machine", "web")
    assert (code, [e["action"] for e in document]) == (0, ["browse", "search"])
    code, document, _ = lanfree("access-log", "check")
    assert (code, document["faults"]) == (0, [])
    head = document["head"]
    with sqlite3.connect(recorded.state / "audit.db") as database:
        database.execute("UPDATE audit_entries SET who = 'nobody' WHERE number = 1")
    code, document, _ = lanfree("access-log", "check", "--head", head)
    assert (code, [f["number"] for f in document["faults"]]) == (6, [1])
    assert lanfree("access-log", "check", "--head", "first")[0] == 2
