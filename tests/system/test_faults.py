"""Faults against the whole product, on real tools: an error that helps, nothing lost, nothing left behind."""

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.lab.array import HOSTS, RESTORE
from appliance.lab.guest import SYSTEM_SIZE
from appliance.lab.lab import Lab

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-system-x86_64", "nbdkit")]

Left = Callable[[], list[str]]
Until = Callable[..., None]


@pytest.fixture(scope="module")
def raw_point(product: Any) -> str:
    """A restore point of the raw-LUN machine."""
    return str(product.good("backup", "raw-lun")[0]["point"]["id"])


Hold = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start_and_hold(lab: Lab, product: Any, until: Until, frozen: Callable[[], bool]) -> Iterator[Hold]:
    """A backup that stands still in the middle: stopped by signal as soon as its snapshot is made, guest thawed."""

    def hold(machine: str) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = product.start("backup", machine, "--full")
        until(lambda: process.poll() is not None or frozen())
        held.append(process)
        _stop(process)
        while any(_in_transaction(path) for path in (lab.directory / "state").glob("*.db")):
            process.send_signal(signal.SIGCONT)  # no other process could get past it
            time.sleep(0.005)
            _stop(process)
        assert process.poll() is None, f"it ended before it could be held: {process.communicate()}"
        return process

    held: list[subprocess.Popen[bytes]] = []
    yield hold
    for process in held:  # a test that failed leaves none behind to disturb the next
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.communicate()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops it, and returns when the last of its threads stands: until then one may still begin a transaction."""
    process.send_signal(signal.SIGSTOP)
    while process.poll() is None and any(_running(task) for task in Path(f"/proc/{process.pid}/task").iterdir()):
        time.sleep(0.001)


def _running(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _in_transaction(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0.2)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")  # without a write-ahead log readers keep others away, too
        except sqlite3.OperationalError:
            return True
        connection.rollback()
    return False


def test_a_backup_killed_in_the_middle_is_gone_on_with_at_the_next_start(
    product: Any, start_and_hold: Hold, left_on_hosts: Left
) -> None:
    before = len(product.good("points"))
    process = start_and_hold("raw-lun")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert left_on_hosts(), "the dead proxy's overlay is what the guest runs on"
    remarks = product.good("sweep")["remarks"]
    assert any("interrupted" in remark for remark in remarks), remarks
    assert any("is done now" in remark for remark in remarks), remarks
    assert left_on_hosts() == []
    assert len(product.good("points")) == before + 1, "the run was gone on with to its end"
    assert not product.good("verify")["damage"]


@pytest.mark.timeout(600)
def test_kills_at_random_moments_never_leave_anything(
    lab: Lab, product: Any, until: Until, left_on_hosts: Left
) -> None:
    # Each round is a run of some three seconds; the seed makes a failure repeatable as far as timing can be.
    moments = random.Random(20261122)
    for _ in range(5):
        process = product.start("backup", "qcow2-lun")
        try:
            process.communicate(timeout=moments.uniform(0.8, 4.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    product.good("sweep")
    assert left_on_hosts() == []
    assert not product.good("verify")["damage"]
    point = product.good("backup", "qcow2-lun")[0]["point"]
    assert point["images"][0]["bytes_read"] > 0


def test_a_second_backup_of_the_same_machine_is_told_who_holds_it(
    product: Any, start_and_hold: Hold, left_on_hosts: Left
) -> None:
    first = start_and_hold("raw-lun")
    try:
        # The second start looks for leftovers too; it must leave the living run's overlay alone.
        code, document, _ = product.run("backup", "raw-lun")
    finally:
        first.send_signal(signal.SIGCONT)
    assert code == 3
    assert document["error"]["code"] == "machine-busy", document
    assert "run b" in document["error"]["message"]
    code, document, said = product.ended(first)
    assert code == 0, said
    assert left_on_hosts() == []


def test_ending_a_backup_on_request_tidies_up(product: Any, start_and_hold: Hold, left_on_hosts: Left) -> None:
    process = start_and_hold("raw-lun")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    code, _, said = product.ended(process)
    # The request may come after the last chunk: then the restore point is whole, else the run says that it was ended.
    assert code in (0, 3), said
    assert left_on_hosts() == []


def test_a_wrong_chap_secret_is_named_and_never_shown(
    lab: Lab, product: Any, left_on_hosts: Left, tmp_path: Path
) -> None:
    secret = tmp_path / "chap"
    secret.write_text("not-the-right-secret")
    secret.chmod(0o600)
    real = f'chap_user = "proxy"\nchap_secret_file = "{lab.directory}/secrets/proxy"'
    wrong = f'chap_user = "proxy"\nchap_secret_file = "{secret}"'

    def change(text: str) -> str:
        assert real in text
        return text.replace(real, wrong) + '\n[backup]\ntransports = ["san"]\n'

    code, document, said = product.with_configuration(change, "wrong-chap.toml").run("backup", "raw-lun")
    assert code == 4, said
    assert document["error"]["code"] == "transport-refused"
    assert "chap" in said.lower() or "authentication" in said.lower()
    assert "not-the-right-secret" not in said
    assert left_on_hosts() == []


def test_a_machine_that_the_san_does_not_show_is_read_over_the_lan_and_says_so(
    lab: Lab, product: Any, left_on_hosts: Left
) -> None:
    def change(text: str) -> str:
        return text.replace('presents = ["iqn.2026-01.lab.san:hosts"]', "presents = []")

    point = product.with_configuration(change, "no-san.toml").good("backup", "qcow2-lun")[0]["point"]
    assert point["images"][0]["transport"] == "lan"
    assert any(reason["code"] == "transport-fallback" for reason in point["reasons"])
    assert left_on_hosts() == []


def test_an_array_that_dies_in_the_middle_fails_the_run_and_leaves_nothing(
    lab: Lab, product: Any, until: Until, start_and_hold: Hold, left_on_hosts: Left
) -> None:
    before = len(product.good("points"))
    process = start_and_hold("raw-lun")
    lab.array.kill()
    process.send_signal(signal.SIGCONT)
    lab.array.restart()
    code, _, said = product.ended(process)
    assert code in (0, 4), said
    points = product.good("points")
    assert len(points) == before + (code == 0)
    product.good("sweep")
    assert left_on_hosts() == []
    until(lambda: lab.guest_run("raw-lun", ["/bin/true"])[0] == 0)


def test_a_full_repository_stops_the_run_and_harms_no_older_point(
    lab: Lab, product: Any, left_on_hosts: Left, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=True)
    try:

        def change(text: str) -> str:
            text = text.replace(f'path = "{lab.directory}/repository"', f'path = "{small}/repository"')
            return text.replace(f'directory = "{lab.directory}/state"', f'directory = "{tmp_path}/state"')

        full = product.with_configuration(change, "full.toml")
        full.good("init")
        code, document, said = full.run("backup", "raw-lun")
        assert code == 5, said
        assert document["error"]["code"] == "repository-full"
        assert document["error"]["hint"]
        assert full.good("points") == []
        assert not full.good("verify")["damage"]
        assert left_on_hosts() == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_flipped_byte_is_named_by_verify_and_refused_by_restore(lab: Lab, product: Any, tmp_path: Path) -> None:
    def change(text: str) -> str:
        text = text.replace(f'path = "{lab.directory}/repository"', f'path = "{tmp_path}/repository"')
        return text.replace(f'directory = "{lab.directory}/state"', f'directory = "{tmp_path}/state"')

    other = product.with_configuration(change, "damaged.toml")
    other.good("init")
    point = other.good("backup", "raw-lun")[0]["point"]
    pack = max((tmp_path / "repository" / "packs").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    code, _, said = other.run("verify")
    assert code == 6, said
    assert "raw-lun" in said
    assert point["id"] in said
    assert '"disk": "vda"' in said
    lun = lab.array.add_lun(SYSTEM_SIZE)
    try:
        place = f"vda={HOSTS.iqn}/{lun.number}"
        code, document, said = other.run("restore", point["id"], "--disk", place, "--as", "never", "--host", "h1")
    finally:
        lab.array.remove_lun(lun.number)
    assert code == 6, said
    assert "vda" in document["error"]["message"]
    assert lab.host("h1").virsh("domid", "never", check=False).code != 0, "no machine was defined"


@pytest.mark.parametrize("named_by", [HOSTS.iqn, RESTORE.iqn], ids=["as the hosts name it", "as the proxy names it"])
def test_a_restore_onto_another_machine_s_lun_is_refused_untouched(
    lab: Lab, product: Any, raw_point: str, named_by: str
) -> None:
    victim = lab.array.lun(5)  # the powered-off machine's: nobody else writes to it
    before = hashlib.sha256(victim.path.read_bytes()).hexdigest()
    words = ["restore", raw_point, "--disk", f"vda={named_by}/5", "--as", "thief", "--host", "h1", "--overwrite"]
    code, document, said = product.run(*words)
    assert code == 1, said
    assert document["error"]["code"] == "restore-refused"
    assert "powered-off" in document["error"]["message"]
    assert hashlib.sha256(victim.path.read_bytes()).hexdigest() == before


def test_a_restore_onto_a_lun_with_somebody_s_file_system_is_refused_untouched(
    lab: Lab, product: Any, raw_point: str
) -> None:
    lun = lab.array.add_lun(SYSTEM_SIZE)
    try:
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(lun.path)], check=True)
        before = hashlib.sha256(lun.path.read_bytes()).hexdigest()
        words = ["restore", raw_point, "--disk", f"vda={HOSTS.iqn}/{lun.number}", "--as", "thief", "--host", "h1"]
        code, document, said = product.run(*words)
        assert code == 1, said
        assert "ext" in document["error"]["message"]
        assert hashlib.sha256(lun.path.read_bytes()).hexdigest() == before
    finally:
        lab.array.remove_lun(lun.number)


def test_a_failing_hook_is_never_called_application_consistent(lab: Lab, product: Any) -> None:
    lab.guest_run("raw-lun", ["/bin/mkdir", "-p", "/run/lanfree-lab"])
    lab.guest_write("raw-lun", "/run/lanfree-lab/fail-hook", b"7")
    try:
        point = product.good("backup", "raw-lun")[0]["point"]
    finally:
        lab.guest_run("raw-lun", ["/bin/rm", "/run/lanfree-lab/fail-hook"])
    assert point["consistency"] == "filesystem"
    reasons = {reason["code"]: reason["detail"] for reason in point["reasons"]}
    assert "50-writer" in reasons["quiesced-hook-failed"]


def test_the_guest_killed_in_the_middle_loses_no_write_and_starts_again(
    lab: Lab, product: Any, start_and_hold: Hold, left_on_hosts: Left, journal: Callable[[str], int]
) -> None:
    # Not while it is being frozen: libvirt 9.0 then keeps the agent's lock until it is restarted (OPERATING.md).
    process = start_and_hold("raw-lun")
    lab.qemu("raw-lun").signal(signal.SIGKILL)
    process.send_signal(signal.SIGCONT)
    code, _, said = product.ended(process)
    assert code == 0, "the frozen disk held, the emulator was not in the way: " + said
    product.good("sweep")
    assert left_on_hosts() == []
    lab.start("raw-lun")
    assert journal("raw-lun") > 0
    point = product.good("backup", "raw-lun")[0]["point"]
    assert point["consistency"] == "application"
