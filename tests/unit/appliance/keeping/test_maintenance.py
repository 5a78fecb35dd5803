"""Keeping a repository in shape from the command line: holds, deletion, retention, collection."""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance import config as configuration
from appliance.cli import app, keeping, points, repository, site  # noqa: F401  # commands register themselves
from appliance.keeping.maintenance import Audit, audited, standings
from appliance.wiring import Services
from proxy.errors import ConfigurationError
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.repository import PosixStore, parallel
from proxy.repository.records import Health

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]
NEWEST = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


@pytest.fixture
def lanfree(command_line: Lanfree, tmp_path: Path) -> Lanfree:
    """With a repository, and rules of retention."""
    path = tmp_path / "lanfree.toml"
    run = partial(command_line, path)
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
def test_retention_spares_what_is_being_restored(lanfree: Lanfree, nights: list[RestorePoint], tmp_path: Path) -> None:
    with (
        Services(configuration.load(tmp_path / "lanfree.toml")) as services,
        services.repository.reading(f"restore r1 of restore point {nights[0].id}"),
    ):
        shown = lanfree("prune", "--apply")[1]
    assert [line["removed"] for line in shown[:2]] == [False, True]
    assert "in use" in shown[0]["why"]
    assert lanfree("prune", "--apply")[1][0]["removed"]


@pytest.mark.slow
def test_how_points_stand_is_asked_for_several_at_once(
    nights: list[RestorePoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(parallel.THREADS, timeout=10)
    get = PosixStore.get

    def meeting(self: PosixStore, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("states/"):
            barrier.wait()
        return get(self, name, offset, length)

    with Services(configuration.load(tmp_path / "lanfree.toml")) as services:
        for point in nights[: parallel.THREADS]:
            services.repository.ledger.note_health(point, Health.GOOD)
        services.repository.ledger.hold(nights[0].id, "trial")
        monkeypatch.setattr(PosixStore, "get", meeting)
        stand = standings(services, nights)
    assert [stand[point.id].health for point in nights].count(Health.GOOD) == parallel.THREADS
    assert [point.id for point in nights if stand[point.id].held] == [nights[0].id]


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


@pytest.fixture
def witnessed(lanfree: Lanfree, tmp_path: Path) -> Callable[..., Audit]:
    """One restore point, and an audit with witnesses that are appended to the configuration as they are given."""
    with Services(configuration.load(tmp_path / "lanfree.toml")) as services:
        with services.repository.image_writer("vda", 65536, None) as writer:
            writer.write(0, memoryview(os.urandom(65536)))
            image = writer.seal()
        point = RestorePoint(
            *("", "m1", "web", "h1", "r", NEWEST, Level.FULL, Consistency.CRASH, (image,)),
            configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
        )
        services.repository.seal(point)

    def run(*witnesses: str, noted: Sequence[Path] = (), publish: bool = True) -> Audit:
        with (tmp_path / "lanfree.toml").open("a") as file:
            file.writelines(f"\n[[witness]]\n{each}\n" for each in witnesses)
        with Services(configuration.load(tmp_path / "lanfree.toml")) as services:
            return audited(services, noted, publish=publish)

    return run


def test_a_torn_or_blank_line_of_a_witness_is_no_tampering_and_stops_no_publishing(
    witnessed: Callable[..., Audit], tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    assert witnessed(f'file = "{notes}"').published == (str(notes),)
    whole = notes.read_bytes()
    notes.write_bytes(whole + b"\n  \n" + whole[:70])
    result = witnessed()
    assert (result.tampered, result.findings, result.notes) == (False, (), 1)
    assert [f"{notes}, line 4" in line for line in result.unreadable] == [True]
    assert result.published == (str(notes),)
    assert witnessed(publish=False).notes == 2


def test_nothing_is_noted_while_something_is_found(witnessed: Callable[..., Audit], tmp_path: Path) -> None:
    assert witnessed(f'file = "{tmp_path}/notes"').published
    before = (tmp_path / "notes").read_bytes()
    (newest,) = (tmp_path / "repo" / "points").glob("*/*")
    newest.unlink()
    result = witnessed()
    assert (result.tampered, result.published) == (True, ())
    assert (tmp_path / "notes").read_bytes() == before


def test_a_witness_that_may_not_be_read_is_told_and_the_others_are_compared_and_note(
    witnessed: Callable[..., Audit], tmp_path: Path
) -> None:
    (tmp_path / "shut").mkdir()  # whoever runs the tests cannot read it as a file
    result = witnessed(f'file = "{tmp_path}/shut"', f'file = "{tmp_path}/notes"')
    assert not result.tampered
    assert result.unreadable == (f"{tmp_path}/shut: nothing noted here can be read: Is a directory",)
    assert result.published == (f"{tmp_path}/notes",)
    assert [line.startswith(f"{tmp_path}/shut: ") for line in result.unpublished] == [True]


def test_a_file_of_notes_that_a_person_names_and_that_cannot_be_read_ends_the_audit(
    witnessed: Callable[..., Audit], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere: cannot be read: No such file"):
        witnessed(noted=[tmp_path / "nowhere"])


def test_what_is_told_of_a_web_hook_has_neither_its_query_nor_its_token(
    witnessed: Callable[..., Audit], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("t0k\x07en\n")
    (tmp_path / "token").chmod(0o600)
    result = witnessed(
        'url = "https://hook.example:99999/notes?s3cret"',
        f'url = "http://localhost:1/notes?s3cret"\ntoken_file = "{tmp_path}/token"',
        'url = "http://localhost:1/refused?s3cret"',
    )
    told = " ".join((*result.unpublished, *result.published))
    assert [line.partition(": ")[0] for line in result.unpublished] == [
        "https://hook.example/notes",
        "http://localhost/notes",
        "http://localhost/refused",
    ]
    assert [word for word in ("s3cret", "t0k", "en\n", "\x07") if word in told] == []


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
