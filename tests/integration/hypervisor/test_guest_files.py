"""Files into a real guest through its qemu-guest-agent: what is not in the contract's suite, because it is KVM's own."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import Volume
from mounter.restore.guest import GuestTarget
from mounter.restore.tree import RestoreReport, restore_files
from mounter.session import MountSession
from mounter.targets import Action
from proxy.clock import SystemClock
from proxy.errors import GuestAgentUnavailable, GuestRefused, TargetFailed
from proxy.guest_files import GuestAttributes, MakeDirectory, Outcome, PlaceFile
from proxy.hypervisor.kvm.guest_files import KvmGuestFiles
from proxy.units import MiB

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "qemu-img")]

MACHINE = "qcow2-lun"
TIME = 1_700_000_000 * 10**9


@pytest.fixture
def root(bench: Any) -> Iterator[bytes]:
    bench.use(MACHINE)
    yield b"/srv/pushed"
    shell(bench, "umount /srv/pushed/mounted; rm -rf /srv/pushed")


def shell(bench: Any, script: str) -> str:
    _, said = bench.lab.guest_run(MACHINE, ["/bin/sh", "-c", script])
    return str(said.decode())


def opened(bench: Any, root: bytes) -> KvmGuestFiles:
    return bench.site.guest_files(bench.id(MACHINE), root)


def session(files: dict[bytes, bytes]) -> MountSession:
    volume = MemoryVolume(Volume("root", "/dev/sda1", "ext4", "", "u", 1 << 30, "/"))
    for path, content in files.items():
        volume.add_file(path, content, mtime_ns=TIME)
    filesystem = MemoryFilesystem([volume])
    return MountSession([], lambda _served, _directory: filesystem, clock=SystemClock())


def push(bench: Any, root: bytes, files: dict[bytes, bytes], **options: bool) -> RestoreReport:
    with session(files) as source, GuestTarget(opened(bench, root), **options) as target:
        return restore_files(source, [b"/data"], target)


def test_a_machine_that_is_off_or_paused_is_told_so(bench: Any, root: bytes) -> None:
    with pytest.raises(GuestAgentUnavailable, match="the machine is off"):
        bench.site.guest_files(bench.id("powered-off"), root)
    bench.virsh(MACHINE, "suspend", MACHINE)
    with pytest.raises(GuestAgentUnavailable, match="the machine is paused"):
        opened(bench, root)
    bench.virsh(MACHINE, "resume", MACHINE)


def test_a_file_goes_to_another_file_system_below_the_root_whole_and_refuses_a_taken_name(
    bench: Any, root: bytes
) -> None:
    shell(
        bench,
        "mkdir -p /srv/pushed/mounted && mount -t tmpfs none /srv/pushed/mounted && echo old > /srv/pushed/mounted/b",
    )
    wanted = GuestAttributes(0o640, 1000, 1000, TIME)
    with opened(bench, root) as files:
        large = os.urandom(300_000)
        staged = [files.stage(len(data), [data]) for data in (large, b"new", b"newer")]
        places = [
            PlaceFile(root + b"/mounted/a", staged[0], wanted),
            PlaceFile(root + b"/mounted/b", staged[1], wanted),
        ]
        over = PlaceFile(root + b"/mounted/b", staged[2], wanted, overwrite=True)
        assert [outcome.exists for outcome in files.apply(places)] == [False, True]
        assert shell(bench, "cat /srv/pushed/mounted/b") == "old\n"
        assert files.apply([over]) == [Outcome()]
    assert bench.lab.guest_read(MACHINE, "/srv/pushed/mounted/a") == large
    assert shell(bench, "stat -c '%a %u %g %Y' /srv/pushed/mounted/a") == f"640 1000 1000 {TIME // 10**9}\n"
    assert shell(bench, "cat /srv/pushed/mounted/b; ls -A /srv/pushed/mounted") == "newer" + "a\nb\n"


def test_a_push_that_broke_off_goes_on_where_it_was(bench: Any, root: bytes) -> None:
    files = {b"/data/%d/%02d" % (n % 3, n): os.urandom(50_000) for n in range(40)}
    done = 0

    def until_the_middle() -> bool:
        nonlocal done
        done += 1
        if done == 1500:  # 51 a file: after the first batch, before the second
            raise InterruptedError
        return False

    with (
        session(files) as source,
        GuestTarget(opened(bench, root)) as target,
        pytest.raises(InterruptedError),
    ):
        restore_files(source, [b"/data"], target, cancelled=until_the_middle)
    names = shell(bench, "cd /srv/pushed && find . -type f").split()
    assert 0 < len(names) < len(files)
    report = push(bench, root, files)
    assert report.complete
    assert report.entries[Action.UNCHANGED] == len(names)
    assert report.written == 50_000 * (len(files) - len(names))
    sums = shell(bench, "cd /srv/pushed && find data -type f -exec sha256sum {} +").split()
    assert dict(zip(sums[1::2], sums[::2], strict=True)) == {
        path.decode().lstrip("/"): hashlib.sha256(content).hexdigest() for path, content in files.items()
    }
    assert ".lanfree" not in shell(bench, "ls -A /srv/pushed")


def test_a_guest_that_is_full_ends_the_push_and_keeps_what_is_whole(bench: Any, root: bytes) -> None:
    shell(bench, "mkdir -p /srv/pushed/mounted && mount -t tmpfs -o size=1m none /srv/pushed/mounted")
    files = {b"/data/a": os.urandom(300_000), b"/data/b": os.urandom(2 * MiB)}
    with pytest.raises((TargetFailed, GuestRefused)) as told:
        push(bench, root + b"/mounted", files)
    assert "space" in f"{told.value.message} {told.value.hint}".lower()
    assert shell(bench, "cd /srv/pushed/mounted && find . -type f") == "./data/a\n"


def test_a_guest_that_is_shut_down_in_the_middle_is_told(bench: Any, root: bytes) -> None:
    with opened(bench, root) as files:
        bench.virsh(MACHINE, "destroy", MACHINE)
        with pytest.raises(GuestAgentUnavailable):
            files.apply([MakeDirectory(root + b"/d")])
    bench.lab.start(MACHINE)


def test_an_agent_that_may_run_no_programs_is_told_with_what_to_do(bench: Any, root: bytes) -> None:
    forbid = "printf '[general]\\nblacklist=guest-exec,guest-exec-status\\n' > /etc/qemu/qemu-ga.conf"
    shell(bench, f"{forbid}; (sleep 1; killall qemu-ga) > /dev/null 2>&1 &")

    def forbidden() -> bool:
        try:
            opened(bench, root).close()
        except GuestAgentUnavailable as error:
            return "does not allow guest-exec" in error.message and "qemu-ga.conf" in error.hint
        return False

    try:
        bench.wait(forbidden)
    finally:  # the guest's own disk forgets nothing: write the file empty, and start anew
        bench.lab.guest_write(MACHINE, "/etc/qemu/qemu-ga.conf", b"[general]\n")
        bench.lab.guest_write(MACHINE, "/etc/qemu/synced", b"")
        bench.virsh(MACHINE, "shutdown", MACHINE, "--mode", "agent", check=False)
        bench.wait(lambda: bench.lab.host_of(MACHINE).state_of(MACHINE) == "shut off")
        bench.lab.start(MACHINE)
    opened(bench, root).close()
