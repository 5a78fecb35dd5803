"""Keeping a repository in shape from the command line: holds, deletion, retention, collection."""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance import config as configuration
from appliance.cli import app, keeping, points, repository, site  # noqa: F401  # commands register themselves
from appliance.wiring import Services
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint

Lanfree = Callable[..., tuple[int, Any, str]]
NEWEST = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


@pytest.fixture
def lanfree(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Lanfree:
    """Run the command line in this process, on one configuration: exit code, JSON document, all that was said."""
    path = tmp_path / "lanfree.toml"

    def run(*words: str) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["lanfree", "--config", str(path), "--json", *words])
        capfd.readouterr()
        code = app.run()
        said = capfd.readouterr()
        return code, json.loads(said.out) if said.out.strip() else None, said.out + said.err

    code, _, said = run("init", "--repository", str(tmp_path / "repo"), "--state", str(tmp_path / "state"))
    assert code == 0, said
    with path.open("a") as file:
        file.write("\n[retention]\nlast = 1\ndaily = 3\n")
    return run


@pytest.fixture
def nights(lanfree: Lanfree, tmp_path: Path) -> list[RestorePoint]:
    """Two restore points a day for a week, oldest first."""
    made = []
    with Services(configuration.load(tmp_path / "lanfree.toml")) as services:
        for hour in range(7 * 24, -1, -12):
            moment = NEWEST - timedelta(hours=hour)
            with services.repository.image_writer("vda", 65536, None) as writer:
                writer.write(0, memoryview(os.urandom(65536)))
                image = writer.seal()
            point = RestorePoint(
                *("", "m1", "web", "h1", f"r{hour}", moment, Level.FULL, Consistency.CRASH, (image,)),
                configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
            )
            made.append(services.repository.seal(point))
            with services.catalog.transaction() as unit:
                unit.restore_points.add(made[-1])
    return made


@pytest.mark.slow
def test_retention_shows_every_point_and_its_rule_and_removes_nothing_unless_asked(
    lanfree: Lanfree, nights: list[RestorePoint]
) -> None:
    code, shown, _ = lanfree("prune")
    assert code == 0
    assert [line["point"] for line in shown] == [p.id for p in nights]
    kept = [line for line in shown if line["keep"]]
    assert [line["point"] for line in kept] == [nights[n].id for n in (-4, -2, -1)]
    assert "daily 3 of 3 (2026-11-20)" in kept[0]["why"]
    assert len(lanfree("points")[1]) == len(nights)


@pytest.mark.slow
def test_retention_deletes_what_no_rule_keeps_and_spares_what_is_held(
    lanfree: Lanfree, nights: list[RestorePoint], tmp_path: Path
) -> None:
    assert lanfree("point", "hold", nights[0].id, "--why", "trial")[0] == 0
    code, shown, _ = lanfree("prune", "--apply")
    assert code == 0
    assert sum(line["removed"] for line in shown) == len(nights) - 4
    left = [p["id"] for p in lanfree("points")[1]]
    assert left == [nights[n].id for n in (0, -4, -2, -1)]
    with Services(configuration.load(tmp_path / "lanfree.toml")) as services, services.catalog.transaction() as unit:
        assert [listed.point.id for listed in unit.restore_points.list()] == left
    assert lanfree("prune", "--apply")[1] == lanfree("prune")[1]
    assert lanfree("point", "release", nights[0].id)[0] == 0
    assert [line["removed"] for line in lanfree("prune", "--apply")[1]] == [True, False, False, False]


@pytest.mark.slow
def test_a_point_is_deleted_by_name_but_not_the_last(lanfree: Lanfree, nights: list[RestorePoint]) -> None:
    for point in nights[:-1]:
        assert lanfree("point", "delete", point.id)[0] == 0
    code, document, _ = lanfree("point", "delete", nights[-1].id)
    assert (code, document["error"]["code"]) == (1, "delete-refused")
    assert [p["id"] for p in lanfree("points")[1]] == [nights[-1].id]


@pytest.mark.slow
def test_a_point_that_cannot_be_read_stops_retention_for_its_machine_until_it_is_forgotten(
    lanfree: Lanfree, nights: list[RestorePoint], tmp_path: Path
) -> None:
    (bad,) = (tmp_path / "repo" / "points").glob(f"*/{nights[3].id}")
    bad.write_bytes(bad.read_bytes()[:-1])
    assert all(line["keep"] for line in lanfree("prune", "--apply")[1])
    code, _, said = lanfree("collect", "--dry-run")
    assert code != 0
    name = str(bad.relative_to(tmp_path / "repo"))
    assert name in said
    assert lanfree("point", "forget", name)[0] == 0
    assert lanfree("collect", "--dry-run")[0] == 0
    assert not all(line["keep"] for line in lanfree("prune")[1])


@pytest.mark.slow
def test_collection_tells_what_it_would_do(lanfree: Lanfree, nights: list[RestorePoint]) -> None:
    assert lanfree("prune", "--apply")[0] == 0
    code, report, said = lanfree("collect", "--dry-run")
    assert (code, report["points"], report["dry_run"]) == (0, 3, True)
    code, report, said = lanfree("collect")
    assert (code, report["missing"]) == (0, []), said
    assert lanfree("verify")[1]["damage"] == []
    assert len(nights) > report["points"]


@pytest.mark.slow
def test_a_copy_under_its_own_key_repairs_the_original(
    lanfree: Lanfree, nights: list[RestorePoint], tmp_path: Path
) -> None:
    with (tmp_path / "lanfree.toml").open("a") as file:
        file.write(f'\n[[copy_to]]\nname = "vault"\npath = "{tmp_path}/vault"\nkey_file = "{tmp_path}/vault.key"\n')
    assert lanfree("copy", "attic", "--newest", "2")[1]["error"]["code"] == "configuration"
    code, done, said = lanfree("copy", "vault", "--newest", "2", "--make", "--read-back")
    assert code == 0, said
    assert [c["point"] for c in done if c["outcome"] == "copied"] == [p.id for p in nights[-2:]]
    assert (tmp_path / "vault.key").read_text() != (tmp_path / "repository.key").read_text()
    for pack in (tmp_path / "repo" / "packs").rglob("*"):
        if pack.is_file():
            damaged = bytearray(pack.read_bytes())
            damaged[100] ^= 1
            pack.write_bytes(damaged)
    assert lanfree("verify", nights[-1].id)[0] == 6
    code, mended, _ = lanfree("repair", "vault", "--point", nights[-1].id)
    assert (code, [m["why"] for m in mended]) == (0, [""])
    assert lanfree("verify", nights[-1].id)[:1] == (0,)


@pytest.mark.slow
def test_a_point_that_was_taken_away_shows_in_the_audit(
    lanfree: Lanfree, nights: list[RestorePoint], tmp_path: Path
) -> None:
    with (tmp_path / "lanfree.toml").open("a") as file:
        file.write(f'\n[[witness]]\nfile = "{tmp_path}/notes"\n')
    code, result, said = lanfree("audit", "--publish")
    assert (code, result["published"]) == (0, [f"{tmp_path}/notes"]), said
    newest = next((tmp_path / "repo" / "points").glob(f"*/{nights[-1].id}"))
    kept = newest.read_bytes()
    newest.unlink()
    code, result, _ = lanfree("audit")
    assert (code, [f["trouble"] for f in result["findings"]]) == (6, ["truncated"])
    newest.write_bytes(kept)
    assert lanfree("audit")[0] == 0
    next((tmp_path / "repo" / "points").glob(f"*/{nights[3].id}")).unlink()
    code, result, _ = lanfree("audit")
    assert (code, [f["trouble"] for f in result["findings"]]) == (6, ["removed"])


@pytest.mark.slow
def test_the_report_counts_every_machine(lanfree: Lanfree, nights: list[RestorePoint]) -> None:
    code, document, _ = lanfree("report")
    assert code == 0
    assert document["total"]["points"] == len(nights)
    assert document["machines"][0]["unique"] == len(nights) * 65536


def test_the_rescue_program_is_printed(
    lanfree: Lanfree, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lanfree", "rescue"])
    capfd.readouterr()
    assert app.run() == 0
    printed = capfd.readouterr().out
    compile(printed, "rescue.py", "exec")
    assert "import proxy" not in printed
    assert "SPDX-License-Identifier" in printed
