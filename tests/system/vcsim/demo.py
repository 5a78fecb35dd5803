"""The vSphere story told with the product's own commands: a simulated vCenter, and a VMFS 6 LUN that the proxy reads itself.

    python -m tests.system.vcsim.demo [--json]      ends with 4 if a claim did not hold

What the hosts handed out is the simulator's own count, what a disk must hold is its own truth; the proxy's commands run as a
user would run them, in processes of their own.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from appliance.demo import Claim
from proxy.errors import ToolFailed
from proxy.units import MiB, format_size
from tests.integration.transport.tgt_array import BACKUP, INITIATOR, RESTORE
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

WEB, DB, RESTORED = "web", "db", "web-restored"
SYSTEM, DATA = "scsi0:0", "scsi0:1"
SIZES = {(WEB, SYSTEM): 192 * MiB, (WEB, DATA): 96 * MiB, (DB, SYSTEM): 128 * MiB}
MACHINES = (
    LabMachine(
        WEB,
        (LabDisk(SYSTEM, SIZES[WEB, SYSTEM], "thin"), LabDisk(DATA, SIZES[WEB, DATA], "lazy")),
        folder="prod",
        tags=("backup:gold",),
        attributes={"owner": "shop"},
    ),
    LabMachine(DB, (LabDisk(SYSTEM, SIZES[DB, SYSTEM], "thick"),), guest="windows2019srv_64Guest"),
)
DATASTORE = LabDatastore("san1", extents=(4,))

WRITE_PAUSE = 0.1
"""Seconds between a guest's writes."""
WRITES = 6
"""Of a guest on each disk before the snapshot, and while it stands: an increment stays one, however long a backup takes."""
COMMAND_TIMEOUT = 300.0
ATTENTION = 4
"""Exit status when a claim did not hold, as ``lanfree demo``'s."""


@dataclass
class Demo:
    """One run. ``quiet``: the story is not told on stderr."""

    lab: VcsimLab
    quiet: bool = False
    claims: list[Claim] = field(default_factory=list)
    points: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    truth: dict[tuple[str, str, int], str] = field(default_factory=dict)
    meanwhile: dict[str, int] = field(default_factory=lambda: dict.fromkeys((WEB, DB), 0))

    @property
    def config(self) -> Path:
        return self.lab.directory / "lanfree.toml"

    @property
    def out(self) -> Path:
        """Where single disks are restored to files."""
        return self.lab.directory / "out"

    def run(self) -> None:
        """All chapters. Raises ``ToolFailed`` for a command that failed."""
        self.out.mkdir()
        self.config.write_text(configuration(self.lab))
        self.lanfree("init")
        self.fulls()
        for _ in range(2):
            self.incremental()
        self.restore_machine()
        self.restore_disk()
        self.disk_given()
        self.nothing_left()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def claim(self, text: str, holds: bool, figure: str) -> None:
        """Note a claim and tell it."""
        self.claims.append(Claim(text, holds, figure))
        self.say(f"  {'✓' if holds else '✗ DOES NOT HOLD:'} {text}: {figure}")

    def lanfree(self, *words: str) -> Any:
        """Run a command of the product and give its JSON result."""
        self.say(f"$ lanfree {' '.join(words)}")
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(self.config), "--json", *words]
        done = subprocess.run(argv, capture_output=True, timeout=COMMAND_TIMEOUT, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise ToolFailed(f"lanfree {words[0]}", f"ended with {done.returncode}", said)
        return json.loads(done.stdout)

    # --- chapters

    def fulls(self) -> None:
        """The first backup of a datastore also qualifies it: some samples are compared with what its host sends."""
        for machine in (WEB, DB):
            self.lab.counters(reset=True)
            point = self.back_up(machine)
            through = self.lab.counters()["Read"]
            figure = f"{told(point, 'bytes_read')} read, {told(point, 'bytes_stored')} stored, of {told(point, 'size')}"
            good = point["level"] == "full" and over(point) == {"san"}
            self.claim(f"{machine}: first backup, read by the proxy from the LUN", good, figure)
            self.claim_digests(machine, point)
            if machine == WEB:
                qualified = 0 < through < total(point, "size")
                figure = f"{format_size(through)} of the host's own stream looked at"
                self.claim(
                    f"{machine}: its datastore is qualified, once, against what its host sends", qualified, figure
                )
            else:
                self.claim_no_host(machine, through)

    def incremental(self) -> None:
        """The guests write, before the snapshot and while it exists."""
        written = self.guests_write()
        for machine in (WEB, DB):
            self.lab.counters(reset=True)
            point = self.back_up(machine)
            read, size = total(point, "bytes_read"), total(point, "size")
            level = point["level"] == "incremental" and over(point) == {"san"}
            self.claim(
                f"{machine}: incremental, only what changed was read",
                level and read < size // 4,
                f"{format_size(read)} read ({100 * read / size:.1f} % of the disks), {format_size(written[machine])} written",
            )
            self.claim_digests(machine, point)
            self.claim_no_host(machine, self.lab.counters()["Read"])

    def restore_machine(self) -> None:
        point = self.points[WEB][-1]
        places = [word for key in (SYSTEM, DATA) for word in ("--disk", f"{key}=[san1]")]
        self.lab.counters(reset=True)
        restored = self.lanfree("restore", point["id"], *places, "--as", RESTORED)
        written = format_size(self.lab.counters()["Written"])
        seconds = sum(disk["seconds"] for disk in restored["disks"])
        same = all(
            self.lab.digest(RESTORED, key) == self.truth[WEB, key, len(self.points[WEB])] for key in (SYSTEM, DATA)
        )
        self.claim(
            f"{WEB} restored as {RESTORED} over the import API, digests equal", same, f"{written} in {seconds:.1f} s"
        )

    def restore_disk(self) -> None:
        """One disk of the first restore point, to a LUN of its own."""
        image = self.lab.directory / "restored-disk.img"
        size = SIZES[WEB, DATA]
        with image.open("wb") as file:
            file.truncate(size)
        self.lab.array.target(2, RESTORE)
        self.lab.array.lun(2, 1, image, "lanfree-restore")
        point = self.points[WEB][0]
        restored = self.lanfree("restore", point["id"], "--disk", f"{DATA}={RESTORE}/1", "--disks-only")
        same = hashlib.sha256(image.read_bytes()).hexdigest() == self.truth[WEB, DATA, 1]
        disk = restored["disks"][0]
        figure = f"{format_size(disk['bytes_written'])} in {disk['seconds']:.1f} s"
        self.claim(f"disk {DATA} of the first backup restored to a raw LUN, digest equal", same, figure)

    def disk_given(self) -> None:
        """The same disk, to the other machine while it runs."""
        point = self.points[WEB][0]
        given = self.lanfree("restore", point["id"], "--disk", f"{DATA}=[san1]", "--attach", DB)
        key = given["attached"]
        same = self.lab.digest(DB, key) == self.truth[WEB, DATA, 1]
        self.claim(f"disk {DATA} of the first backup given to {DB} while it runs, digest equal", same, f"as {key}")

    def nothing_left(self) -> None:
        left = {name: self.lab.machine(name) for name in (WEB, DB, RESTORED)}
        snapshots = sum(len(machine["Snapshots"]) for machine in left.values())
        deltas = sum(len(disk["Files"]) - 1 for machine in left.values() for disk in machine["Disks"])
        blocked = sum(len(machine["Disabled"] or ()) for machine in left.values())
        self.claim("snapshots left: none", not snapshots and not deltas, f"{snapshots} snapshots, {deltas} deltas")
        self.claim("relocation is enabled again", not blocked, f"{blocked} methods disabled")
        report = self.lanfree("verify")
        figure = f"{report['points']} restore points, {format_size(report['bytes_checked'])} read and checked"
        self.claim("every restore point verifies", not report["damage"], figure)

    # --- parts of chapters

    def guests_write(self) -> dict[str, int]:
        """Somewhere on each disk, into holes and into blocks that are still to be zeroed too. Bytes by machine, with those
        that were written during the last backup."""
        written = dict(self.meanwhile)
        for (machine, disk), size in SIZES.items():
            for _ in range(12):
                written[machine] += write_somewhere(self.lab, machine, disk, size)
        return written

    def back_up(self, machine: str) -> Mapping[str, Any]:
        """With a guest that writes all the time. The truth is what the snapshot froze."""
        points = self.points.setdefault(machine, [])
        with Guest(self.lab, machine) as guest:
            point: Mapping[str, Any] = self.lanfree("backup", machine)[0]["point"]
        points.append(point)
        self.meanwhile[machine] = guest.written
        for disk in disks_of(machine):
            self.truth[machine, disk, len(points)] = guest.frozen.get(disk, "the snapshot was not seen")
        return point

    def claim_digests(self, machine: str, point: Mapping[str, Any]) -> None:
        """The repository's own digest is one of chunks; so each image is put into a file and the file's bytes compared."""
        keys = disks_of(machine)
        same = 0
        with tempfile.TemporaryDirectory(dir=self.out) as scratch:
            for number, key in enumerate(keys):
                file = Path(scratch) / f"{number}.img"
                self.lanfree("restore", point["id"], "--disk", f"{key}={file}", "--disks-only")
                found = hashlib.sha256(file.read_bytes()).hexdigest()
                same += found == self.truth[machine, key, len(self.points[machine])]
        self.claim(
            f"{machine}: what was stored is what the LUN held", same == len(keys), f"{same} of {len(keys)} disks"
        )

    def claim_no_host(self, machine: str, through: int) -> None:
        self.claim(
            f"{machine}: backup data through the hosts: none", not through, f"{through} bytes by their own count"
        )


class Guest:
    """A machine's guest while it is backed up: it writes, and ``frozen`` is what the snapshot holds of each disk."""

    def __init__(self, lab: VcsimLab, machine: str) -> None:
        self.written = 0
        self.frozen: dict[str, str] = {}
        self._lab = lab
        self._machine = machine
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"guest of {machine}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _live(self) -> None:
        left = WRITES
        while not self._over.wait(WRITE_PAUSE):
            for disk in disks_of(self._machine) if left else ():
                self.written += write_somewhere(self._lab, self._machine, disk, SIZES[self._machine, disk])
            left = max(0, left - 1)
            made = [] if self.frozen else self._lab.machine(self._machine)["Snapshots"]
            if made:
                self.frozen = {d: self._lab.digest(self._machine, d, made[0]) for d in disks_of(self._machine)}
                left = WRITES


def disks_of(machine: str) -> list[str]:
    """Keys of its disks."""
    return [disk for name, disk in SIZES if name == machine]


def write_somewhere(lab: VcsimLab, machine: str, disk: str, size: int) -> int:
    """What an application does. Returns how many bytes."""
    data = random.randbytes(random.randrange(1, 30_000))
    lab.guest_writes(machine, disk, random.randrange(size - len(data)), data)
    return len(data)


def configuration(lab: VcsimLab) -> str:
    """A lanfree.toml for the lab: repository and state under its directory."""
    base, portals = lab.directory, json.dumps(list(lab.array.portals))
    secret = lab.san_target.chap_secret_file
    return f"""\
[repository]
path = "{base / "repository"}"
key_file = "{base / "repository.key"}"

[state]
directory = "{base / "state"}"

[backup]
transports = ["san"]

[files]
index = false  # these disks hold noise

[raw]
shared_directories = ["{base / "out"}"]

[[vcenter]]
name = "demo"
host = "{lab.host}"
port = {lab.port}
user = "{lab.user}"
password_file = "{lab.password_file}"
thumbprint = "{lab.thumbprint}"

[[san.target]]
iqn = "{BACKUP}"
portals = {portals}
initiator = "{INITIATOR}"
chap_user = "{lab.san_target.chap_user}"
chap_secret_file = "{secret}"

[[san.target]]
iqn = "{RESTORE}"
portals = {portals}
initiator = "{INITIATOR}"
access = "restore"
"""


def over(point: Mapping[str, Any]) -> set[str]:
    """The transports that its images came over."""
    return {image["transport"] for image in point["images"]}


def total(point: Mapping[str, Any], what: str) -> int:
    """A figure of all its images."""
    images: Sequence[Mapping[str, int]] = point["images"]
    return sum(image[what] for image in images)


def told(point: Mapping[str, Any], what: str) -> str:
    """``total`` as people read it."""
    return format_size(total(point, what))


def main() -> int:
    """Exit status: 0, or ``ATTENTION``."""
    parser = argparse.ArgumentParser(description="The vSphere demo.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, no story")
    quiet = parser.parse_args().json
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="lanfree-vsphere-") as directory,
        VcsimLab(Path(directory), MACHINES, (DATASTORE,)) as lab,
    ):
        demo = Demo(lab, quiet)
        demo.say(f"a simulated vCenter on port {lab.port}, machines {WEB} and {DB} on the LUN {lab.names['san1'][0]}")
        demo.run()
    good = all(claim.holds for claim in demo.claims)
    seconds = time.monotonic() - started
    if quiet:
        print(json.dumps({"claims": [asdict(claim) for claim in demo.claims], "seconds": seconds}))
    demo.say(f"{len(demo.claims)} claims, {'all hold' if good else 'NOT ALL HOLD'}, {seconds:.0f} s")
    return 0 if good else ATTENTION


if __name__ == "__main__":
    sys.exit(main())
