"""The lab against the real tools: everything that other tests and the demo take for granted."""

import hashlib
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import config
from appliance.kvm import kvm_works
from appliance.lab.array import BACKUP, HOSTS, RESTORE, TARGETS, Target
from appliance.lab.lab import RUN, Lab
from appliance.lab.processes import of_lab, wait_for
from appliance.lab.state import StateFile
from proxy import command
from proxy.errors import ConfigurationError, ToolFailed
from proxy.units import MiB

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("root", "tgtd", "libvirtd", "virsh", "qemu-system-x86_64", "qemu-io", "qemu-ga", "iscsi-inq"),
]

RAW = "raw-lun"


def url(lab: Lab, target: Target, lun: int, *, portal: int = 0, secret: str | None = None) -> str:
    """With the secret in it: only for the momentary commands of these tests."""
    word = lab.array.secret_file(target).read_text() if secret is None else secret
    return f"iscsi://{target.account}%{word}@{lab.array.portals[portal]}/{target.iqn}/{lun}"


def designators(lab: Lab, target: Target, lun: int, *, portal: int = 0) -> str:
    place = url(lab, target, lun, portal=portal)
    said = command.run(["iscsi-inq", "-e", "1", "-c", "131", place], timeout=10).text
    return said.split("T10_VENDORT_ID")[1].split("[")[1].split("]")[0]


def qemu_io(lab: Lab, target: Target, lun: int, words: str, *options: str) -> command.Result:
    argv = ["qemu-io", "-f", "raw", *options, "-c", words, url(lab, target, lun)]
    return command.run(argv, timeout=20, check=False)


def records(lab: Lab, machine: str) -> int:
    return len(lab.guest_read(machine, "/data/journal").splitlines())


def grows(lab: Lab, machine: str) -> bool:
    before = records(lab, machine)
    return wait_for(lambda: records(lab, machine) > before, timeout=20, every=0.3)


@pytest.fixture
def idle_lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab of its own with nothing started."""
    with Lab.up(tmp_path / "idle", machines=(), hosts=1) as running:
        yield running


def test_the_default_lab_is_up_within_thirty_seconds(lab: Lab, lab_seconds: dict[str, float]) -> None:
    status = lab.status()
    assert {machine.name for machine in status.machines if machine.state == "running"} == {RAW, "qcow2-lun"}
    assert {machine.name for machine in status.machines} == {RAW, "qcow2-lun", "two-disks", "powered-off", "qcow2-file"}
    assert all(host.running for host in status.hosts)
    assert len(status.hosts) == 2
    assert status.array_running
    assert [lun.number for lun in status.luns] == [1, 2, 3, 4, 5]
    assert all(0 < lun.allocated < lun.size for lun in status.luns)
    # Thirty seconds on a machine that has nothing else to do; in proportion on one that has.
    assert lab_seconds["up"] < 30 * lab_seconds["load"]


def test_its_configuration_is_one_that_the_product_reads(lab: Lab) -> None:
    settings = config.parse(lab.configuration(), lab.directory / "lanfree.toml")
    assert [host.uri for host in settings.host] == [host.uri for host in lab.hosts]
    assert [target.access for target in settings.san.target] == ["backup", "restore"]
    assert all(HOSTS.iqn in target.presents for target in settings.san.target)
    backup = settings.san.target[0]
    assert backup.portals == lab.array.portals
    assert backup.chap_secret_file is not None
    assert backup.chap_secret_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("portal", [0, 1])
def test_a_lun_is_the_same_through_all_targets_and_portals_and_differs_from_the_others(lab: Lab, portal: int) -> None:
    luns = lab.array.luns()[:2]
    for lun in luns:
        assert {designators(lab, target, lun.number, portal=portal) for target in TARGETS} == {lun.identity}
    assert luns[0].identity != luns[1].identity


def test_the_backup_view_refuses_a_write_and_the_restore_view_takes_it(lab: Lab) -> None:
    lun = lab.array.add_lun(4 * MiB)
    refused = qemu_io(lab, BACKUP, lun.number, "write -P 0x5a 1M 4k")
    assert refused.code != 0
    assert "write protected" in refused.stderr.lower()
    assert lun.path.read_bytes() == bytes(4 * MiB)
    assert qemu_io(lab, RESTORE, lun.number, "write -P 0x5a 1M 4k").code == 0
    assert lun.path.read_bytes()[MiB : MiB + 4096] == b"\x5a" * 4096
    assert qemu_io(lab, BACKUP, lun.number, "read -P 0x5a 1M 4k", "-r").code == 0
    lab.array.remove_lun(lun.number)
    assert not lun.path.exists()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_wrong_chap_secret_is_refused(lab: Lab, target: Target) -> None:
    with pytest.raises(ToolFailed, match="Authentication failure"):
        command.run(["iscsi-inq", url(lab, target, 1, secret="0123456789abcdef")], timeout=10)
    assert "LANFREE" in command.run(["iscsi-inq", url(lab, target, 1)], timeout=10).text


def test_an_account_opens_only_its_own_target(lab: Lab) -> None:
    proxy = lab.array.secret_file(BACKUP).read_text()
    with pytest.raises(ToolFailed, match="Authentication failure"):
        command.run(["iscsi-inq", f"iscsi://proxy%{proxy}@{lab.array.portals[0]}/{RESTORE.iqn}/1"], timeout=10)


def test_no_long_lived_process_shows_a_secret_on_its_command_line(lab: Lab) -> None:
    words = " ".join(process.command_line for process in of_lab(lab.id))
    assert "tgtd" in words
    assert not [target.name for target in TARGETS if lab.array.secret_file(target).read_text() in words]


def test_the_array_counts_bytes_for_each_target(lab: Lab) -> None:
    before = lab.array.statistics()
    argv = ["qemu-io", "-r", "-f", "raw", "-c", "read 0 8M", "-c", "sleep 3000", url(lab, BACKUP, 5)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as reader:
        counted = wait_for(lambda: lab.array.statistics()["backup"].read >= before["backup"].read + 8 * MiB, timeout=10)
        assert counted
        assert lab.array.statistics()["backup"].sessions == before["backup"].sessions + 1
        reader.terminate()
    after = lab.array.statistics()
    assert after["backup"].read >= before["backup"].read + 8 * MiB, "a session that ended stays in the sum"
    assert after["hosts"].read - before["hosts"].read < MiB, "the hosts' target served none of it"
    assert after["restore"] == before["restore"]


def test_the_writer_goes_on_and_its_files_have_the_digests_of_its_journal(lab: Lab) -> None:
    assert grows(lab, RAW)
    number, name, digest = lab.guest_read(RAW, "/data/journal").splitlines()[-1].decode().split()
    content = lab.guest_read(RAW, f"/data/files/{name}")
    later = lab.guest_read(RAW, "/data/journal").splitlines()[-1].decode().split()[0]
    assert int(later) < int(number) + 64, "the file was written again before it was read; the test is too slow"
    assert hashlib.sha256(content).hexdigest() == digest


def freeze(lab: Lab, request: str) -> dict[str, object]:
    """Request, freeze, thaw: what the hook answered. The guest is thawed in any case."""
    host = lab.host_of(RAW)
    lab.guest_write(RAW, "/run/lanfree/quiesce-request", request.encode())
    try:
        host.virsh("domfsfreeze", RAW)
    finally:
        host.virsh("domfsthaw", RAW)
    found = json.loads(lab.guest_read(RAW, "/run/lanfree/quiesce-result"))
    assert isinstance(found, dict)
    return found


def test_a_freeze_is_answered_with_its_own_request_and_a_marker_on_the_disk(lab: Lab) -> None:
    answer = freeze(lab, "run-17.4f")
    assert answer == {"request": "run-17.4f", "ok": True, "apps": ["50-writer"], "failed": "", "exit": 0}
    marker = lab.guest_read(RAW, "/data/QUIESCED").decode()
    assert 0 < int(marker.split()[0].removeprefix("records=")) <= records(lab, RAW)
    assert grows(lab, RAW), "the writer goes on after the thaw"


def test_a_hook_that_fails_says_so_and_the_writer_goes_on(lab: Lab) -> None:
    lab.guest_write(RAW, "/run/lanfree-lab/fail-hook", b"7\n")
    try:
        answer = freeze(lab, "run-18")
    finally:
        lab.guest_run(RAW, ["/bin/rm", "/run/lanfree-lab/fail-hook"])
    assert answer == {"request": "run-18", "ok": False, "apps": ["50-writer"], "failed": "50-writer", "exit": 7}
    assert grows(lab, RAW)


def test_a_hook_that_hangs_keeps_the_freeze_waiting(lab: Lab) -> None:
    lab.guest_write(RAW, "/run/lanfree-lab/hang-hook", b"3\n")
    begun = time.monotonic()
    try:
        answer = freeze(lab, "run-19")
    finally:
        lab.guest_run(RAW, ["/bin/rm", "/run/lanfree-lab/hang-hook"])
    assert time.monotonic() - begun >= 3
    assert answer["ok"] is True


def test_live_migration_keeps_the_guest_running(lab: Lab) -> None:
    code, before = lab.guest_run(RAW, ["/bin/cat", "/proc/sys/kernel/random/boot_id"])
    assert code == 0
    lab.migrate(RAW, "h2")
    assert lab.host_of(RAW).name == "h2"
    assert lab.host("h1").state_of(RAW) is None
    assert lab.guest_run(RAW, ["/bin/cat", "/proc/sys/kernel/random/boot_id"]) == (0, before)
    assert grows(lab, RAW)
    lab.migrate(RAW, "h1")
    assert lab.host_of(RAW).name == "h1"


def test_a_machine_outlives_its_hosts_daemon(lab: Lab) -> None:
    lab.stop_host("h1")
    assert not lab.host("h1").answers()
    assert lab.qemu(RAW).alive
    lab.start_host("h1")
    assert lab.host("h1").state_of(RAW) == "running"
    assert grows(lab, RAW)


def test_a_host_has_storage_pools(lab: Lab) -> None:
    host = lab.host("h1")
    host.virsh("pool-create-as", "shared", "dir", "--target", lab.shared)
    try:
        assert "qcow2-file-vda.qcow2" in host.virsh("vol-list", "shared").text
    finally:
        host.virsh("pool-destroy", "shared")


def test_two_labs_live_side_by_side_and_one_going_down_leaves_the_other(lab: Lab, idle_lab: Lab) -> None:
    assert idle_lab.array.port != lab.array.port
    lun = idle_lab.array.lun(1)
    assert designators(idle_lab, BACKUP, 1) == lun.identity != lab.array.lun(1).identity
    mine = {process.pid for process in of_lab(idle_lab.id)}
    others = {process.pid for process in of_lab(lab.id)}
    assert mine
    assert not mine & others
    idle_lab.down()
    assert {process.pid for process in of_lab(lab.id)} == others
    assert lab.status().array_running


def test_a_directory_takes_one_lab_only(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="holds a lab already"):
        Lab.up(lab.directory)
    assert lab.status().array_running


def test_down_leaves_no_process_mount_socket_or_file_and_can_be_asked_twice(idle_lab: Lab) -> None:
    run = idle_lab.run
    assert (run / "h1" / "libvirt-sock").exists()
    assert {process.name for process in of_lab(idle_lab.id)} >= {"tgtd", "libvirtd"}
    idle_lab.array.freeze()
    idle_lab.down()
    assert of_lab(idle_lab.id) == []
    assert not run.exists()
    assert not idle_lab.directory.exists()
    assert str(idle_lab.directory) not in Path("/proc/self/mountinfo").read_text()
    idle_lab.down()
    with pytest.raises(ConfigurationError, match="holds no lab"):
        Lab.attach(idle_lab.directory)


STARTER = """
import sys
from pathlib import Path
from appliance.lab.lab import Lab
Lab.up(Path(sys.argv[1]), machines=("powered-off",), hosts=1)
"""


def test_a_lab_whose_starter_was_killed_goes_down_without_leftovers(tmp_path: Path) -> None:
    place = tmp_path / "killed"
    starter = command.spawn([sys.executable, "-c", STARTER, place])
    try:
        # In the middle of the start: QEMU runs, the agent does not answer yet.
        state = StateFile(place)
        assert wait_for(state.path.exists, timeout=20)
        name = state.read().lab
        running = wait_for(lambda: any("qemu" in process.name for process in of_lab(name)), timeout=60)
        assert running
    finally:
        starter.kill()
        starter.wait()
        Lab.attach(place).down()
    assert of_lab(name) == []
    assert not place.exists()
    assert not (RUN / name).exists()


def test_the_array_survives_being_frozen_killed_and_started_again(idle_lab: Lab) -> None:
    array = idle_lab.array
    inquiry = ["iscsi-inq", url(idle_lab, BACKUP, 1)]
    array.freeze()
    with pytest.raises(ToolFailed, match="did not end"):
        command.run(inquiry, timeout=1)
    array.thaw()
    assert "LANFREE" in command.run(inquiry, timeout=10).text
    array.kill()
    assert array.process is None
    with pytest.raises(ToolFailed):
        command.run(inquiry, timeout=10)
    array.restart()
    assert designators(idle_lab, BACKUP, 1) == array.lun(1).identity
    assert tomllib.loads(idle_lab.configuration())["san"]["target"][0]["portals"] == list(array.portals)


def test_the_proxys_certificate_is_for_clients_and_signed_by_the_labs_authority(lab: Lab) -> None:
    place = lab.client_certificates
    check = ["openssl", "verify", "-CAfile", place / "ca-cert.pem", "-purpose"]
    assert command.run([*check, "sslclient", place / "client-cert.pem"], timeout=10).code == 0
    assert command.run([*check, "sslserver", place / "client-cert.pem"], timeout=10, check=False).code != 0
    assert (place / "client-key.pem").stat().st_mode & 0o777 == 0o600


def test_machines_use_hardware_virtualisation_exactly_where_the_trial_found_that_it_works(lab: Lab) -> None:
    works, how = kvm_works()
    assert how
    assert ("<domain type='kvm'" in lab.host_of(RAW).virsh("dumpxml", RAW).text) == works


def test_a_guest_goes_on_after_its_array_died_and_came_back(lab: Lab) -> None:
    lab.array.kill()
    lab.array.restart()
    assert lab.host_of(RAW).state_of(RAW) == "running"
    assert grows(lab, RAW)
