"""The main job told with the product's own commands, on the built-in lab. Every claim is checked, and a figure stands by it.

Commands run as a user would run them, in processes of their own; what the array and the guests say is asked of them.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance import demo_console
from appliance.lab.array import HOSTS
from appliance.lab.guest import SYSTEM_SIZE
from appliance.lab.lab import RUNNING, Lab
from proxy.errors import ToolFailed
from proxy.units import KiB, MiB, format_size

RAW, QCOW2 = RUNNING
RESTORED = "raw-lun-restored"

# A command of the demo reads or writes some hundred MiB and may launch a libguestfs appliance under emulation.
COMMAND_TIMEOUT = 300.0
# Guests write a few files a second; this much makes an increment worth showing.
CHANGES_SECONDS = 4.0
# Of an overlay, as QEMU makes it: the first write into a cluster reads the rest of it from below.
CLUSTER = 64 * KiB


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the product promises, whether it held, and the measured figure."""

    claim: str
    holds: bool
    figure: str


@dataclass(slots=True)
class DemoResult:
    """All claims in order, and how long the whole took (set-up not counted)."""

    claims: list[Claim] = field(default_factory=list)
    seconds: float = 0.0


def run_demo(
    directory: Path | None, *, keep: bool, say: Callable[[str], None], look: Callable[[], None] | None = None
) -> DemoResult:
    """Bring up a lab, run the main job, take the lab down (unless ``keep``). ``look``: returns when people have looked enough
    at the console, which runs until then; without, it is tried as people would. Raises the errors of its commands."""
    with tempfile.TemporaryDirectory(prefix="lanfree-demo-") as scratch:
        place = directory or Path(tempfile.mkdtemp(prefix="lanfree-lab-"))
        started = time.monotonic()
        say(f"bringing up the lab in {place}: an iSCSI array, two libvirt hosts, guests {RAW} and {QCOW2}")
        lab = Lab.up(place)
        try:
            demo = _Demo(lab, Path(scratch), say)
            demo.claim("the lab is up", True, f"{time.monotonic() - started:.1f} s")
            for chapter in (
                demo.full_backups,
                demo.incrementals,
                demo.migration,
                demo.files,
                demo.whole_machine,
                demo.nothing_left,
            ):
                chapter()
            demo.result.seconds = time.monotonic() - started
            demo.console(look)
        finally:
            if keep:
                say(f"the lab keeps running; 'lanfree lab down --directory {place}' ends it")
            else:
                say("taking the lab down")
                lab.down()
        return demo.result


class _Demo:
    def __init__(self, lab: Lab, scratch: Path, say: Callable[[str], None]) -> None:
        self._lab = lab
        self._scratch = scratch
        self._say = say
        self.result = DemoResult()
        self._config = lab.directory / "lanfree.toml"
        # Recorded in a chapter of its own, where it can be seen.
        self._config.write_text(lab.configuration() + "\n[files]\nindex = false\n")
        self._host_reads = 0
        self._guest_reads = 0
        self._backup_reads = 0
        self._points: dict[str, Mapping[str, Any]] = {}
        self.lanfree("init")

    def claim(self, text: str, holds: bool, figure: str) -> None:
        """Note a claim and tell it."""
        self.result.claims.append(Claim(text, holds, figure))
        self._say(f"  {'✓' if holds else '✗ DOES NOT HOLD:'} {text}: {figure}")

    def lanfree(self, *words: str) -> Any:
        """Run a command of the product and give its JSON result. Raises ``ToolFailed`` unless it ends well."""
        self._say(f"$ lanfree {' '.join(words)}")
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(self._config), "--json", *words]
        done = subprocess.run(argv, capture_output=True, timeout=COMMAND_TIMEOUT, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise ToolFailed(f"lanfree {words[0]}", f"ended with {done.returncode}", said)
        return json.loads(done.stdout)

    # --- chapters -----------------------------------------------------------------------------------------------------

    def full_backups(self) -> None:
        with self._watched_array():
            for machine in (RAW, QCOW2):
                before = len(self._journal(machine))
                point = self._back_up(machine)
                after = len(self._journal(machine))
                self.claim(
                    f"{machine}: first backup, read by the proxy over the SAN",
                    point["level"] == "full" and _over(point) == {"san"},
                    f"{_size(point, 'bytes_read')} read, {_size(point, 'bytes_stored')} stored, of {_size(point, 'size')}",
                )
                self._claim_consistent(machine, point)
                self.claim(
                    f"{machine}: its guest goes on writing", after > before, f"{after - before} transactions meanwhile"
                )

    def incrementals(self) -> None:
        self._changes()
        with self._watched_array():
            point = self._back_up(QCOW2)
            self._claim_incremental(QCOW2, point)
            raw = self._back_up(RAW)
            self.claim(
                f"{RAW}: no change tracking on raw, so all is read and only what differs is stored",
                _sum(raw, "bytes_new") < _sum(raw, "size") // 4,
                f"{_size(raw, 'bytes_read')} read, {_size(raw, 'bytes_new')} new, {_size(raw, 'bytes_stored')} stored",
            )

    def migration(self) -> None:
        self._say(f"live migration of {QCOW2} from h1 to h2")
        self._lab.migrate(QCOW2, "h2")
        self._changes()
        parent = self._points[QCOW2]
        with self._watched_array():
            point = self._back_up(QCOW2)
        moved = point["host"] == "h2" and point["parent"] == parent["id"]
        self.claim(
            f"{QCOW2}: the same machine on another host, its chain intact",
            moved,
            f"{parent['host']} -> {point['host']}",
        )
        self._claim_incremental(QCOW2, point)

    def files(self) -> None:
        point = self._points[QCOW2]["id"]
        count = self.lanfree("files", "index", point)["entries"]
        started = time.monotonic()
        hits = self.lanfree("files", "find", "*.bin", "--point", point)
        self.claim(
            "files of the restore point are catalogued", len(hits) > 0, f"{count} entries, {len(hits)} match *.bin"
        )
        took = time.monotonic() - started
        target = self._scratch / "files"
        wanted = hits[0]["path"]
        self.lanfree("files", "get", point, wanted, "/data/journal", "/data/QUIESCED", "--to", str(target))
        journal = [line.split() for line in (target / "journal").read_text().splitlines()]
        name = Path(wanted).name
        truth = {file: digest for _, file, digest in journal}[name]
        found = hashlib.sha256((target / name).read_bytes()).hexdigest()
        self.claim(
            f"{wanted} found by name and restored, equal to the guest's journal",
            found == truth,
            f"{took:.1f} s to find",
        )
        marker = _records((target / "QUIESCED").read_bytes())
        self.claim(
            "the image holds whole transactions only",
            marker == len(journal),
            f"{marker} noted at freeze, {len(journal)} in it",
        )

    def whole_machine(self) -> None:
        lun = self._lab.array.add_lun(SYSTEM_SIZE)
        point = self._points[RAW]["id"]
        place = f"vda={HOSTS.iqn}/{lun.number}"
        restored = self.lanfree("restore", point, "--disk", place, "--as", RESTORED, "--host", "h1")
        disk = restored["disks"][0]
        self.claim(
            "restored over the SAN to a new LUN, digest equal",
            disk["digest"] == self._points[RAW]["images"][0]["digest"],
            f"{format_size(disk['bytes_written'])} in {disk['seconds']:.1f} s",
        )
        sparse = lun.allocated < disk["bytes_written"] + 4 * MiB
        self.claim(
            "zeroes stay unallocated", sparse, f"{format_size(lun.allocated)} of {format_size(lun.size)} allocated"
        )
        started = time.monotonic()
        self._lab.start(RESTORED)
        marker = _records(self._lab.guest_read(RESTORED, "/data/QUIESCED"))
        lines = len(self._journal(RESTORED))
        self.claim(
            "the restored machine boots, its agent answers", lines >= marker > 0, f"{time.monotonic() - started:.1f} s"
        )
        self._lab.stop(RESTORED)

    def nothing_left(self) -> None:
        explained = self._host_reads <= self._guest_reads
        self.claim(
            "backup data through the hosts: none",
            explained and self._host_reads < self._backup_reads // 10,
            f"{format_size(self._backup_reads)} read by the proxy; meanwhile the hosts read {format_size(self._host_reads)}, "
            f"all of it for their guests (which account for up to {format_size(self._guest_reads)})",
        )
        overlays = [path for path in (self._lab.shared / "overlays").rglob("*") if path.is_file()]
        chains = [name for name in RUNNING if "lanfree-" in _sources(self._lab, name)]
        figure = f"{len(overlays)} overlays, {len(chains)} machines on one"
        self.claim("snapshots and overlays left on the hosts: none", not overlays and not chains, figure)
        report = self.lanfree("verify")
        figure = f"{report['points']} restore points, {format_size(report['bytes_checked'])} read and checked"
        self.claim("every restore point verifies", not report["damage"], figure)

    def console(self, look: Callable[[], None] | None) -> None:
        lab = self._lab
        self._say("$ lanfree serve    # jobs by their schedules, with API and console beside them")
        with demo_console.console(
            self._config,
            public=look is not None,
            uris=[f"qemu+unix:///system?socket={lab.run}/*"],
            restores=lab.directory / "restored",
            log=lab.directory / "logs" / "serve.log",
        ) as console:
            figure = f"{console.address} after {console.seconds:.1f} s"
            self.claim("the console answers over TLS, with a certificate of its own authority", True, figure)
            for line in console.lines:
                self._say(line)
            if look is not None:
                for line in _to_try(lab.array.add_lun(SYSTEM_SIZE).number):
                    self._say(line)
                look()
                self._say("ending the console")
                return
            session = demo_console.first_administrator(console)
            self.claim(
                "its one-time code makes the first administrator, who signs in",
                "administrator" in session.roles,
                f"{session.name} may {len(session.permissions)} things",
            )

    # --- parts of chapters --------------------------------------------------------------------------------------------

    def _back_up(self, machine: str) -> Mapping[str, Any]:
        outcome = self.lanfree("backup", machine)[0]
        point: Mapping[str, Any] = outcome["point"]
        self._points[machine] = point
        self._backup_reads += _sum(point, "bytes_read")
        return point

    def _claim_consistent(self, machine: str, point: Mapping[str, Any]) -> None:
        proven = point["consistency"] == "application"
        self.claim(
            f"{machine}: application consistent, proven by its hook", proven, f"frozen {point['frozen_seconds']:.2f} s"
        )

    def _claim_incremental(self, machine: str, point: Mapping[str, Any]) -> None:
        read, size = _sum(point, "bytes_read"), _sum(point, "size")
        self.claim(
            f"{machine}: incremental, only what changed was read",
            point["level"] == "incremental" and read < size // 2,
            f"{format_size(read)} read ({100 * read / size:.1f} % of the disk), {_size(point, 'bytes_stored')} stored",
        )

    def _changes(self) -> None:
        self._say(f"guests write for {CHANGES_SECONDS:.0f} s")
        time.sleep(CHANGES_SECONDS)

    def _journal(self, machine: str) -> list[bytes]:
        return self._lab.guest_read(machine, "/data/journal").splitlines()

    @contextmanager
    def _watched_array(self) -> Iterator[None]:
        """Count what the array served to the hosts meanwhile, and what their guests alone explain of it."""
        array, guests = self._lab.array.statistics()[HOSTS.name].read, self._guest_demand()
        yield
        self._host_reads += self._lab.array.statistics()[HOSTS.name].read - array
        self._guest_reads += self._guest_demand() - guests

    def _guest_demand(self) -> int:
        """Bytes that the running guests may have caused to be read, by the hypervisor's own counters: what they read, and
        for each write request the cluster that its overlay copies first."""
        demand = 0
        for machine in RUNNING:
            words = self._lab.host_of(machine).virsh("domblkstat", machine, "vda").text.split()
            counters = {name: int(value) for _, name, value in zip(*[iter(words)] * 3, strict=True)}
            demand += counters["rd_bytes"] + counters["wr_req"] * CLUSTER
        return demand


def _to_try(empty: int) -> Sequence[str]:
    """On the last screen, under address and code. ``empty``: a LUN that nobody uses."""
    return (
        f"It knows the lab's machines, and the restore points of {RAW} and {QCOW2} that you saw being made. To begin with:",
        f"  Restore files      look into a restore point of {QCOW2}; what is under /data/files can be downloaded",
        f"  I lost a file      the same by what somebody remembers: machine {QCOW2}, name .bin",
        f"  Restore a machine  {RAW} under a new name, to LUN {empty}, which is empty",
        "  Jobs, New job      machines name=*-lun; then Run now, and watch it",
        "It runs until you press Ctrl-C here.",
    )


def _sources(lab: Lab, machine: str) -> str:
    return lab.host_of(machine).virsh("domblklist", machine).text


def _records(marker: bytes) -> int:
    """``records=N …`` as the guest's application wrote it at freeze."""
    return int(marker.split(b"records=")[1].split()[0])


def _over(point: Mapping[str, Any]) -> set[str]:
    return {image["transport"] for image in point["images"]}


def _sum(point: Mapping[str, Any], what: str) -> int:
    images: Sequence[Mapping[str, int]] = point["images"]
    return sum(image[what] for image in images)


def _size(point: Mapping[str, Any], what: str) -> str:
    return format_size(_sum(point, what))
