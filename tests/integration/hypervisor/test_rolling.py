"""Rolling overlays on the lab: every incremental is put on top of the bytes of the backup before it and compared with what
QEMU alone makes of the frozen chain. See the drawing in ``proxy/hypervisor/kvm/rolling.py``."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance import config
from appliance.wiring import san_target
from proxy import command
from proxy.errors import NoSpaceForOverlay, SnapshotFailed, SnapshotInUse, UnderOverlay
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.kvm.connection import Host
from proxy.hypervisor.kvm.overlays import Found, merge
from proxy.hypervisor.kvm.rolling import failed
from proxy.model import (
    Consistency,
    FileAddress,
    Format,
    FrozenDisk,
    LunAddress,
    PowerState,
    QuiescePolicy,
    ReasonCode,
    Snapshot,
    Tracking,
)
from proxy.ports import DiskPlace, NewMachine
from proxy.state_directory import StateDirectory
from proxy.transport.raw import RawTransport, SharedFiles
from proxy.transport.san import SanFabric, SanTransport
from proxy.units import MiB

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-img")]

PARTITION = 1024 * 1024
GROWS = "44444444-2222-4333-8444-555555555555"


class Roller:
    """A site with the option on, and what it has backed up so far: the bytes and the mark of each disk."""

    def __init__(self, bench, directory: Path) -> None:
        self.bench = bench
        self.directory = directory
        self.site = self.new_site()
        self.kept: dict[tuple[str, str], tuple[bytes, str]] = {}
        settings = config.parse(bench.lab.configuration(), directory)
        fabric = SanFabric([san_target(target) for target in settings.san.target])
        self.transport_of_files = RawTransport(SharedFiles([bench.lab.shared]))
        self.transport_of_luns = SanTransport(fabric, SharedFiles([bench.lab.shared]))

    def new_site(
        self, *names: str, busy: bool = False, overlays: Path | None = None, reserve: int | None = None
    ) -> KvmSite:
        @contextmanager
        def readers_gone(machine: str) -> Iterator[None]:
            if busy:
                raise SnapshotInUse(machine)
            yield

        hosts = [KvmHost(h.name, h.uri, str(overlays or self.bench.overlays), reserve) for h in self.bench.lab.hosts]
        rolling = names or ("raw-*", "two-disks")
        return KvmSite(
            hosts, state=StateDirectory(self.bench.state), readers_gone=readers_gone, rolling_overlay=rolling
        )

    def off(self) -> KvmSite:
        """The same without the option."""
        return self.new_site("nobody")

    def since(self, name: str) -> dict[str, str]:
        return {key: mark for (machine, key), (_, mark) in self.kept.items() if machine == name and mark}

    def take(self, name: str, *keys: str, **asked: object) -> Snapshot:
        return self.site.snapshot(self.bench.request(name, *keys, since=self.since(name), **asked))

    def read(self, name: str, disk: FrozenDisk) -> tuple[bytes, int]:
        """As a backup reads the disk: what changed on top of what was kept, else everything; and bytes read."""
        before, mark = self.kept.get((name, disk.key), (b"", ""))
        on_lun = isinstance(disk.layers[-1].location, LunAddress)
        with (self.transport_of_luns if on_lun else self.transport_of_files).open(disk) as source:
            tracked = mark and disk.tracking is not Tracking.NONE
            out = bytearray(before if tracked else source.size)
            extents = source.changed(mark) if tracked else source.extents()
            assert len(out) == source.size
            for extent in extents:
                source.read_into(extent.start, memoryview(out)[extent.start : extent.end])
        return bytes(out), sum(extent.length for extent in extents)

    def truth(self, disk: FrozenDisk) -> bytes:
        """The frozen chain as QEMU shows it, with the array's own file as its base."""
        chain = None
        for layer in reversed(disk.layers):
            place = layer.location
            path = place.path if isinstance(place, FileAddress) else self.bench.lun(place.lun)
            below = {"backing": chain} if chain else {}
            chain = {"driver": layer.format.value, "file": {"driver": "file", "filename": str(path)}, **below}
        to = self.directory / f"truth-{disk.key}"
        command.run(["qemu-img", "convert", "-U", "-O", "raw", f"json:{json.dumps(chain)}", to], timeout=60)
        return to.read_bytes()

    def back_up(self, name: str, *keys: str, **asked: object) -> Snapshot:
        """One whole backup, its bytes compared with the truth."""
        snapshot = self.take(name, *keys, **asked)
        self.keep(name, snapshot)
        self.site.release(snapshot, sealed=True)
        return snapshot

    def keep(self, name: str, snapshot: Snapshot) -> None:
        """Read, compare, confirm, and remember: as if it was sealed."""
        self.site.confirm(snapshot)
        for disk in snapshot.disks:
            data, read = self.read(name, disk)
            assert data == self.truth(disk), f"{disk.key} by {disk.tracking}"
            if disk.tracking is Tracking.LAYER:
                assert 0 < read < len(data) / 4
            self.kept[name, disk.key] = data, disk.change_id or ""

    def chain(self, name: str, key: str = "vda") -> list[str]:
        """The overlays and the base, equal in what runs and in what is defined."""
        live, saved = self.bench.chain(name, key), self.bench.chain(name, key, inactive=True)
        assert live == saved
        return live

    def files(self) -> list[str]:
        return sorted(f.name for f in self.bench.overlays.iterdir())

    def ended(self) -> None:
        """The way of an operator: the option off, and a sweep."""
        site = self.off()
        site.sweep(list)
        site.close()


@pytest.fixture
def roller(bench, tmp_path):
    made = Roller(bench, tmp_path)
    yield made
    made.site.close()
    made.ended()


def codes(snapshot: Snapshot) -> list[ReasonCode]:
    return [reason.code for reason in snapshot.reasons]


def tracking(snapshot: Snapshot) -> list[Tracking]:
    return [disk.tracking for disk in snapshot.disks]


def consistent(image: bytes, directory: Path) -> None:
    """The file system is clean, and the hook counted as many records as the journal has."""
    part = directory / "part.img"
    part.write_bytes(image[PARTITION:])
    assert command.run(["e2fsck", "-fn", part], timeout=60, check=False).code == 0

    def cat(path: str) -> str:
        return command.run(["debugfs", "-R", f"cat {path}", part], timeout=60).text

    assert int(cat("/data/QUIESCED").split("records=")[1].split()[0]) == cat("/data/journal").count("\n")


def test_from_the_second_backup_on_only_what_the_overlay_holds_is_read(bench, roller, tmp_path):
    bench.use("raw-lun")
    first = roller.back_up("raw-lun")
    (disk,) = first.disks
    assert disk.tracking is Tracking.NONE and len(disk.layers) == 1
    assert roller.chain("raw-lun")[0] == disk.overlay and disk.overlay.endswith(disk.change_id)
    for _ in range(2):
        bench.writes_go_on("raw-lun")
        snapshot = roller.back_up("raw-lun", quiesce=QuiescePolicy.REQUIRE)
        assert tracking(snapshot) == [Tracking.LAYER]
        assert [layer.format for layer in snapshot.disks[0].layers] == [Format.QCOW2, Format.RAW]
        assert snapshot.consistency is Consistency.APPLICATION
        consistent(roller.kept["raw-lun", "vda"][0], tmp_path)
        assert bench.lun(1).read_bytes() == roller.kept["raw-lun", "vda"][0], "the overlay is in the base"
        assert len(roller.chain("raw-lun")) == 2
        assert roller.files() == [snapshot.disks[0].change_id]
    assert roller.site.sweep(list) == []
    assert len(roller.chain("raw-lun")) == 2


def test_a_machine_on_its_overlay_is_shown_and_saved_as_if_it_was_on_its_lun(bench, roller):
    bench.use("raw-lun")
    before = bench.site.machine(bench.id("raw-lun")).disks[0]
    roller.back_up("raw-lun")
    (disk,) = roller.site.machine(bench.id("raw-lun")).disks
    assert isinstance(disk.location, LunAddress) and disk.location.lun == 1
    assert (disk.format, disk.size, disk.below) == (before.format, before.size, before.below)
    assert disk.overlay == roller.chain("raw-lun")[0] and before.overlay is None
    assert "/overlays/" not in roller.site.configuration(bench.id("raw-lun")).text


def test_a_run_that_failed_leaves_the_overlay_that_was_there_and_the_next_is_right(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    chain = roller.chain("raw-lun")
    bench.writes_go_on("raw-lun")
    failed = roller.take("raw-lun")
    bench.writes_go_on("raw-lun")
    roller.site.release(failed, sealed=False)
    assert roller.chain("raw-lun") == chain and len(roller.files()) == 1
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_a_first_run_that_failed_leaves_the_raw_disk(bench, roller):
    bench.use("raw-lun")
    failed = roller.take("raw-lun")
    roller.site.release(failed, sealed=False)
    assert len(roller.chain("raw-lun")) == 1 and roller.files() == []


@pytest.mark.parametrize("known", ["kept", "lost"])
def test_a_run_that_died_before_its_seal_is_taken_back_by_the_sweep(bench, roller, known):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    dead = roller.take("raw-lun")
    bench.writes_go_on("raw-lun")
    if known == "lost":
        (bench.state / "runs" / f"{dead.run}.json").unlink()
    assert bool(roller.new_site().sweep(list)) is (known == "kept")
    assert len(roller.chain("raw-lun")) == (2 if known == "kept" else 3)
    after = roller.back_up("raw-lun")
    assert tracking(after) == [Tracking.LAYER if known == "kept" else Tracking.NONE]
    assert (ReasonCode.TRACKING_LOST in codes(after)) is (known == "lost")
    assert len(roller.chain("raw-lun")) == 2 and len(roller.files()) == 1
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_a_run_that_died_after_its_seal_is_ended_by_the_sweep_and_the_next_is_incremental(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    snapshot = roller.take("raw-lun")
    roller.keep("raw-lun", snapshot)
    with pytest.raises(SnapshotInUse):
        roller.new_site(busy=True).release(snapshot, sealed=True)
    assert len(roller.chain("raw-lun")) == 3
    assert roller.new_site().sweep(list)
    assert roller.chain("raw-lun")[0] == snapshot.disks[0].overlay and len(roller.chain("raw-lun")) == 2
    assert roller.files() == [snapshot.disks[0].change_id]
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_killed_before_any_of_its_steps_a_run_leaves_one_overlay_and_a_right_next_backup(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    ends, found = [], []
    while 0 not in ends:
        hosts = [(h.name, h.uri, str(bench.overlays)) for h in bench.lab.hosts]
        asked = {
            "hosts": hosts,
            "state": str(bench.state),
            "rolling": ["raw-lun"],
            "machine": bench.id("raw-lun"),
            "run": f"killed-{len(ends)}",
            "since": roller.since("raw-lun"),
        }
        words = [sys.executable, Path(__file__).with_name("killed_backup.py"), json.dumps(asked), str(len(ends))]
        ends.append(command.run(words, timeout=60, check=False, env={"PYTHONPATH": os.pathsep.join(sys.path)}).code)
        bench.writes_go_on("raw-lun")
        roller.new_site().sweep(list)
        assert len(roller.chain("raw-lun")) == 2 and len(roller.files()) == 1
        found += tracking(roller.back_up("raw-lun", quiesce=QuiescePolicy.NEVER))
    # Before the run's end began it is taken back, and the mark of the backup before it holds; then it is ended as sealed.
    assert set(ends[:-1]) == {9} and len(ends) > 6
    assert found == sorted(found, key=[Tracking.LAYER, Tracking.NONE].index) and len(set(found)) == 2


def test_a_run_that_ends_while_a_sweep_is_on_keeps_its_overlay(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    ending = roller.take("raw-lun")
    roller.keep("raw-lun", ending)

    def live() -> list[str]:  # leftovers were looked for already, and the run among them
        roller.site.release(ending, sealed=True)
        return []

    assert roller.new_site().sweep(live) == []
    assert roller.chain("raw-lun")[0] == ending.disks[0].overlay
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_a_released_snapshot_is_released_again_without_harm(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    second = roller.back_up("raw-lun")
    chain = roller.chain("raw-lun")
    assert roller.site.release(second, sealed=True) == []
    assert roller.chain("raw-lun") == chain and len(roller.files()) == 1


def test_a_machine_that_was_shut_down_is_read_through_its_overlay_and_starts_from_it(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    bench.lab.shutdown("raw-lun")
    first = roller.back_up("raw-lun", quiesce=QuiescePolicy.REQUIRE)
    (disk,) = first.disks
    assert (first.method, disk.tracking, len(disk.layers)) == ("off", Tracking.LAYER, 2)
    again = roller.back_up("raw-lun")
    assert tracking(again) == [Tracking.LAYER] and again.disks[0].change_id == disk.change_id
    records = len(bench.lab.guest_read("raw-lun", "/data/journal").splitlines()) if starts(bench) else 0
    assert records > 0, "the guest has its journal"
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]
    assert len(roller.chain("raw-lun")) == 2


def starts(bench) -> bool:
    bench.lab.start("raw-lun")
    return True


def test_a_machine_that_is_off_gets_its_mark_with_a_whole_read_too(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.lab.shutdown("raw-lun")
    roller.kept.clear()
    off = roller.back_up("raw-lun")
    assert tracking(off) == [Tracking.NONE] and off.disks[0].change_id is not None
    starts(bench)
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_an_overlay_whose_file_was_exchanged_makes_no_wrong_increment(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    bench.lab.shutdown("raw-lun")
    overlay = Path(roller.chain("raw-lun")[0])
    size = bench.site.machine(bench.id("raw-lun")).disks[0].size
    overlay.unlink()
    command.run(["qemu-img", "create", "-f", "qcow2", overlay, str(size)], timeout=30)
    snapshot = roller.take("raw-lun")
    (disk,) = snapshot.disks
    data, read = roller.read("raw-lun", disk)
    assert (disk.tracking, read) == (Tracking.LAYER, 0)
    assert data == roller.truth(disk), "the guest lost its writes, and so the restore point says"
    roller.site.release(snapshot, sealed=False)
    starts(bench)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_guest_shut_down_in_mid_backup_is_released_off_and_goes_on(bench, roller, sealed):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    snapshot = roller.take("raw-lun")
    bench.writes_go_on("raw-lun")
    bench.lab.shutdown("raw-lun")
    if sealed:
        roller.keep("raw-lun", snapshot)
    roller.site.release(snapshot, sealed=sealed)
    assert len(roller.chain("raw-lun")) == 2 and len(roller.files()) == 1
    off = roller.back_up("raw-lun")
    assert (off.method, tracking(off)) == ("off", [Tracking.LAYER])
    starts(bench)
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


@pytest.mark.parametrize("sealed", [True, False])
def test_defined_without_its_overlays_and_shut_down_in_mid_backup_a_machine_loses_none(bench, roller, tmp_path, sealed):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    snapshot = roller.take("raw-lun")
    bench.writes_go_on("raw-lun")
    if sealed:
        roller.keep("raw-lun", snapshot)
    files, right = roller.files(), saved_definition(bench, tmp_path)
    clean = tmp_path / "clean.xml"
    clean.write_text(roller.site.configuration(bench.id("raw-lun")).text)
    bench.virsh("raw-lun", "define", str(clean))
    bench.lab.shutdown("raw-lun")
    assert len(roller.chain("raw-lun")) == 1 and len(files) == 2
    newest = bench.digest(Path(snapshot.disks[0].overlay))
    roller.site.release(snapshot, sealed=sealed)
    kept_and_named(bench, roller, files, "writes of a machine on iscsi://")
    bench.virsh("raw-lun", "define", str(right))  # a person knows what became of it
    assert bench.digest(Path(snapshot.disks[0].overlay)) == newest
    roller.back_up("raw-lun")  # the machine that is off, as its chain shows it
    starts(bench)
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]
    assert len(roller.chain("raw-lun")) == 2 and len(roller.files()) == 1


@pytest.mark.parametrize("end", ["sealed", "failed", "killed"])
def test_undefined_in_mid_backup_a_machine_loses_no_overlay(bench, roller, tmp_path, end):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    snapshot = roller.take("raw-lun")
    bench.writes_go_on("raw-lun")
    files, right = roller.files(), saved_definition(bench, tmp_path)
    bench.lab.shutdown("raw-lun")
    host = bench.lab.host_of("raw-lun")
    host.virsh("undefine", "raw-lun")
    try:
        if end != "killed":
            roller.site.release(snapshot, sealed=end == "sealed")
        kept_and_named(bench, roller, files, "no machine uses its base iscsi://")
    finally:
        host.virsh("define", str(right))
    starts(bench)
    bench.writes_go_on("raw-lun")
    roller.back_up("raw-lun")
    assert len(roller.chain("raw-lun")) == 2 and len(roller.files()) == 1


def test_an_overlay_of_a_machine_that_stops_in_mid_merge_and_is_defined_otherwise_was_not_merged(
    bench, roller, tmp_path
):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    snapshot = roller.take("raw-lun")
    bench.writes_go_on("raw-lun")
    right, clean = saved_definition(bench, tmp_path), tmp_path / "clean.xml"
    clean.write_text(roller.site.configuration(bench.id("raw-lun")).text)
    stopped = []

    def note(found: Found) -> None:  # all that is missing is the pivot
        stopped.append(found.path)
        bench.virsh("raw-lun", "define", str(clean))
        bench.lab.stop("raw-lun")

    h1 = bench.lab.host("h1")
    host = Host(KvmHost(h1.name, h1.uri, str(bench.overlays)))
    try:
        place = host.domain(bench.id("raw-lun"))
        assert merge(place, failed(snapshot.run, stays=True), note) == []
    finally:
        host.close()
        bench.virsh("raw-lun", "define", str(right))
    assert stopped == [snapshot.disks[0].overlay]
    roller.site.release(snapshot, sealed=False)
    assert len(roller.chain("raw-lun")) == 2 and len(roller.files()) == 1
    starts(bench)
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def saved_definition(bench, directory: Path) -> Path:
    """With its overlays, as libvirt has it now."""
    path = directory / "right.xml"
    path.write_text(bench.virsh("raw-lun", "dumpxml", "raw-lun", "--inactive", "--security-info"))
    return path


def kept_and_named(bench, roller, files: list[str], why: str) -> None:
    """A sweep tells of each of the files that it is kept, and why (once for each host that has the directory)."""
    for _ in range(2):
        told = [reason.detail for reason in roller.new_site().sweep(list)]
        assert roller.files() == files
        assert sorted({detail.split()[1] for detail in told if detail.startswith("kept ")}) == files, told
        assert all(why in detail for detail in told), told


def test_a_killed_emulator_breaks_nothing(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    snapshot = roller.take("raw-lun")
    bench.writes_go_on("raw-lun")
    bench.lab.qemu("raw-lun").signal(signal.SIGKILL)
    host = bench.lab.host_of("raw-lun")
    bench.wait(lambda: host.state_of("raw-lun") == "shut off")
    roller.keep("raw-lun", snapshot)
    roller.site.release(snapshot, sealed=True)
    starts(bench)
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_a_libvirtd_that_starts_anew_knows_the_chain(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.lab.stop_host("h1")
    bench.lab.start_host("h1")
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]
    assert len(roller.chain("raw-lun")) == 2


def test_migration_between_and_during_backups_keeps_the_increments(bench, roller):
    bench.use("raw-lun")
    assert ReasonCode.OVERLAY_NOT_SHARED not in codes(roller.back_up("raw-lun"))
    bench.lab.migrate("raw-lun", "h2")
    try:
        bench.writes_go_on("raw-lun")
        second = roller.take("raw-lun")
        assert second.host == "h2"
    finally:
        bench.lab.migrate("raw-lun", "h1")
    roller.keep("raw-lun", second)
    assert tracking(second) == [Tracking.LAYER]
    assert [r.code for r in roller.site.release(second, sealed=True)] == [ReasonCode.MIGRATED]
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_a_definition_that_stays_behind_never_leaves_the_overlay_out(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    socket = bench.lab.run / "move"
    words = ["--live", "--persistent", "--unsafe", "--migrateuri", f"unix://{socket}"]
    h1, h2 = bench.lab.host("h1"), bench.lab.host("h2")
    h1.virsh("migrate", "raw-lun", h2.uri, *words, timeout=60)
    try:
        bench.writes_go_on("raw-lun")
        assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]
        stayed = h1.virsh("dumpxml", "raw-lun").text
        assert roller.chain("raw-lun")[0] in stayed
        bench.lab.shutdown("raw-lun")
        assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER], "both definitions say the same"
        out_of_date = bench.lab.directory / "out-of-date.xml"
        out_of_date.write_text(roller.site.configuration(bench.id("raw-lun")).text)
        h1.virsh("define", out_of_date)
        with pytest.raises(SnapshotFailed, match="different overlays"):
            roller.take("raw-lun")
        h1.virsh("undefine", "raw-lun")
        starts(bench)
        roller.ended()
    finally:
        bench.lab.migrate("raw-lun", "h1")


def test_a_machine_defined_anew_without_its_overlay_gets_it_back_before_it_can_start(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    clean = bench.lab.directory / "clean.xml"
    clean.write_text(roller.site.configuration(bench.id("raw-lun")).text)
    bench.virsh("raw-lun", "define", str(clean))
    assert len(bench.chain("raw-lun", inactive=True)) == 1
    assert [reason.code for reason in roller.new_site().sweep(list)] == [ReasonCode.TRACKING_REPAIRED]
    assert len(roller.chain("raw-lun")) == 2
    bench.virsh("raw-lun", "define", str(clean))
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER], "a snapshot mends it, too"
    assert len(roller.chain("raw-lun")) == 2
    bench.lab.shutdown("raw-lun")
    starts(bench)
    assert len(roller.chain("raw-lun")) == 2


def test_switched_off_everything_goes_back_to_the_raw_disk(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    roller.site = roller.off()
    last = roller.back_up("raw-lun")
    assert tracking(last) == [Tracking.LAYER] and last.disks[0].change_id is None
    assert len(roller.chain("raw-lun")) == 1 and roller.files() == []
    assert tracking(roller.back_up("raw-lun")) == [Tracking.NONE]


@pytest.mark.parametrize("state", ["running", "off"])
def test_switched_off_a_sweep_alone_merges_the_overlay(bench, roller, state):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    if state == "off":
        bench.lab.shutdown("raw-lun")
        expected = roller.truth(roller.take("raw-lun").disks[0])
    assert roller.off().sweep(list)
    assert len(roller.chain("raw-lun")) == 1 and roller.files() == []
    if state == "off":
        assert bench.lun(1).read_bytes() == expected
        starts(bench)
    bench.writes_go_on("raw-lun")


def test_switched_off_nothing_is_taken_from_a_run_that_reads_it(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.writes_go_on("raw-lun")
    live = roller.take("raw-lun")
    assert roller.off().sweep(lambda: [live.run]) == []
    roller.keep("raw-lun", live)
    roller.site.release(live, sealed=True)


def test_under_somebody_elses_snapshot_everything_is_read_and_then_tracked_again(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    foreign = bench.overlays / "theirs.qcow2"
    words = ("--diskspec", f"vda,file={foreign}", "--disk-only", "--no-metadata")
    bench.virsh("raw-lun", "snapshot-create-as", "raw-lun", "theirs", *words)
    try:
        bench.writes_go_on("raw-lun")
        above = roller.back_up("raw-lun")
        assert tracking(above) == [Tracking.NONE] and above.disks[0].change_id is None
        assert {ReasonCode.TRACKING_LOST, ReasonCode.NO_TRACKING} <= set(codes(above))
        assert bench.chain("raw-lun")[0] == str(foreign)
    finally:
        bench.virsh("raw-lun", "blockcommit", "raw-lun", "vda", "--active", "--pivot", "--shallow", "--wait")
        foreign.unlink()
    assert tracking(roller.back_up("raw-lun")) == [Tracking.NONE]
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_an_overlay_that_somebody_merged_is_missed_and_everything_is_read(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    lost = Path(roller.chain("raw-lun")[0])
    bench.writes_go_on("raw-lun")
    bench.virsh("raw-lun", "blockcommit", "raw-lun", "vda", "--active", "--pivot", "--shallow", "--wait")
    told = [reason.detail for reason in roller.site.sweep(list)]
    assert lost.exists() and any("kept" in detail and lost.name in detail for detail in told), "it is for a person"
    again = roller.back_up("raw-lun")
    assert tracking(again) == [Tracking.NONE] and ReasonCode.TRACKING_LOST in codes(again)
    lost.unlink()
    bench.writes_go_on("raw-lun")
    assert tracking(roller.back_up("raw-lun")) == [Tracking.LAYER]


def test_two_disks_at_one_moment_one_rolls_and_one_keeps_its_bitmap(bench, roller):
    bench.use("two-disks")
    roller.back_up("two-disks", "vda", "vdb")
    for _ in range(2):
        bench.writes_go_on("two-disks")
        snapshot = roller.back_up("two-disks", "vda", "vdb")
        assert tracking(snapshot) == [Tracking.LAYER, Tracking.IMAGE]
        assert [len(roller.chain("two-disks", key)) for key in ("vda", "vdb")] == [2, 1]
        assert bench.checkpoints("two-disks") == [snapshot.disks[1].change_id]
    roller.site = roller.off()
    roller.site.sweep(list)
    assert [len(roller.chain("two-disks", key)) for key in ("vda", "vdb")] == [1, 1]


def test_a_host_that_does_not_share_the_directory_is_named(bench, roller):
    bench.use("raw-lun")
    own = bench.lab.shared / "overlays-of-its-own"
    hosts = [KvmHost(h.name, h.uri, str(bench.overlays if h.name == "h1" else own)) for h in bench.lab.hosts]
    roller.site = KvmSite(hosts, state=StateDirectory(bench.state), rolling_overlay=("raw-*",))
    told = [r.detail for r in roller.back_up("raw-lun").reasons if r.code is ReasonCode.OVERLAY_NOT_SHARED]
    assert told == [f"the machine cannot migrate live to {', '.join(h.name for h in hosts if h.name != 'h1')}"]


def test_over_the_lan_the_overlay_stays_as_it_is(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    chain = roller.chain("raw-lun")
    pulled = roller.take("raw-lun", pull=True)
    assert (pulled.method, tracking(pulled), pulled.disks[0].change_id) == ("pull", [Tracking.NONE], None)
    roller.site.release(pulled, sealed=True)
    assert roller.chain("raw-lun") == chain


def test_a_machine_on_its_overlay_is_not_replaced_by_a_restore(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    bench.lab.shutdown("raw-lun")
    saved = roller.site.configuration(bench.id("raw-lun"))
    with pytest.raises(UnderOverlay) as refused:
        roller.site.check_define(saved, NewMachine("raw-lun", "h1", {}))
    assert "sweep" in refused.value.hint
    roller.ended()
    roller.site.check_define(saved, NewMachine("raw-lun", "h1", {}))
    assert roller.site.machine(bench.id("raw-lun")).state is PowerState.OFF
    starts(bench)


def test_room_for_the_whole_disk_is_asked_for_before_it_rolls(bench, roller, small_directory):
    bench.use("raw-lun")
    size = bench.site.machine(bench.id("raw-lun")).disks[0].size
    roller.site = roller.new_site(overlays=small_directory)
    with pytest.raises(NoSpaceForOverlay, match=f"may need {size + 64 * MiB}"):
        roller.take("raw-lun")
    assert len(roller.chain("raw-lun")) == 1 and list(small_directory.iterdir()) == []


def test_a_guest_that_filled_the_directory_goes_on_when_the_overlay_is_merged(bench, roller, small_directory):
    bench.use("raw-lun")
    roller.site = roller.new_site(overlays=small_directory, reserve=0)
    roller.site.release(roller.take("raw-lun"), sealed=True)
    fill = "dd if=/dev/urandom of=/data/fill bs=1M count=12; sync; touch /data/filled"
    bench.lab.guest_run("raw-lun", ["/bin/sh", "-c", f"({fill}) </dev/null >/dev/null 2>&1 &"])
    bench.wait(lambda: "I/O error" in bench.virsh("raw-lun", "domstate", "raw-lun", "--reason"))
    site = roller.new_site("nobody", overlays=small_directory)
    assert site.sweep(list)
    bench.wait(lambda: bench.lab.guest_run("raw-lun", ["/bin/ls", "/data/filled"])[0] == 0)
    bench.lab.guest_run("raw-lun", ["/bin/rm", "-f", "/data/fill", "/data/filled"])
    assert list(small_directory.iterdir()) == []


def test_an_overlay_that_two_machines_name_is_merged_for_neither(bench, roller):
    bench.use("raw-lun")
    roller.back_up("raw-lun")
    text = bench.virsh("raw-lun", "dumpxml", "raw-lun", "--inactive")
    copied = bench.lab.directory / "copied.xml"
    named = text.replace("<name>raw-lun</name>", "<name>copied</name>")
    copied.write_text(named.replace(bench.id("raw-lun"), "33333333-2222-4333-8444-555555555555"))
    h2 = bench.lab.host("h2")
    h2.virsh("define", copied)
    try:
        told = [reason.detail for reason in roller.off().sweep(list)]
        assert len(told) == 2 and all("named by 2 machines" in detail for detail in told)
        assert len(roller.chain("raw-lun")) == 2 and len(roller.files()) == 1
    finally:
        h2.virsh("undefine", "copied")


def test_a_disk_that_grew_on_its_overlay_is_read_as_large_as_it_is_and_merged_into_a_base_that_grows(bench, roller):
    bench.use("raw-lun")
    base, name = bench.lab.shared / "raw-grows.raw", "raw-grows"
    base.write_bytes(b"old" * 1000 + bytes(2 * MiB - 3000))
    new = NewMachine(name, "h1", {"vda": DiskPlace(path=str(base))}, identity=GROWS)
    roller.site.define(roller.site.configuration(bench.id("raw-lun")), new)
    try:
        bench.virsh(name, "start", name, "--paused")
        roller.back_up(name)
        bench.virsh(name, "blockresize", name, "vda", f"{3 * MiB}B")
        grown = roller.take(name)
        (disk,) = grown.disks
        with roller.transport_of_files.open(disk) as source:
            out = bytearray(source.size)
            source.read_into(0, memoryview(out))
        assert bytes(out) == roller.truth(disk) and len(out) == disk.size == 3 * MiB
        roller.site.release(grown, sealed=True)
        assert base.stat().st_size == 3 * MiB and len(roller.chain(name)) == 2
        roller.ended()
    finally:
        bench.virsh(name, "destroy", name)
        bench.virsh(name, "undefine", name)
        base.unlink()
