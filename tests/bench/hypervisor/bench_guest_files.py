"""How fast files go into a running guest through its qemu-guest-agent.

    python tests/bench/hypervisor/bench_guest_files.py [--mib 8] [--files 500]

Brings up a lab of its own with one guest (software emulation where KVM does not work, which makes the agent itself the
bottleneck: it reads JSON byte by byte) and prints MB/s (10^6) of content and files a second, one line a kind of file. Every
file is compared with what was sent. About a minute; needs root, for the lab.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from appliance.kvm import kvm_works
from appliance.lab.lab import Lab
from proxy.guest_files import GuestAttributes, Outcome, PlaceFile
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.kvm.guest_files import KvmGuestFiles
from proxy.state_directory import StateDirectory
from proxy.units import MiB

MACHINE = "qcow2-file"
ROOT = b"/srv/bench"
BATCH = 256
SMALL = 4000


def log_lines(size: int) -> bytes:
    """Text as servers write it."""
    lines = bytearray()
    number = 0
    while len(lines) < size:
        number += 1
        lines += b"2026-11-22T%02d:%02d:%02d host%d app[%d]: request %s took %d ms\n" % (
            number // 3600 % 24,
            number // 60 % 60,
            number % 60,
            number % 7,
            1000 + number % 50,
            hashlib.sha256(b"%d" % number).hexdigest()[:12].encode(),
            number * 7919 % 1000,
        )
    return bytes(lines[:size])


def sent(files: KvmGuestFiles, contents: Mapping[bytes, bytes]) -> float:
    """Seconds until all have their names."""
    attributes = GuestAttributes(0o640, 1000, 1000, 1_700_000_000 * 10**9)
    started = time.perf_counter()
    names = list(contents)
    for start in range(0, len(names), BATCH):
        batch = [
            PlaceFile(ROOT + b"/" + name, files.stage(len(contents[name]), [contents[name]]), attributes)
            for name in names[start : start + BATCH]
        ]
        outcomes = files.apply(batch)
        assert outcomes == [Outcome()] * len(batch), outcomes
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, tidy up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=8, help="of each large file")
    parser.add_argument("--files", type=int, default=500, help="small ones")
    options = parser.parse_args()
    size = options.mib * MiB
    kinds = {
        f"one file of {options.mib} MiB, random bytes": {b"random": os.urandom(size)},
        f"one file of {options.mib} MiB, log lines": {b"log": log_lines(size)},
        f"{options.files} files of {SMALL} bytes, random": {
            b"r%d" % n: os.urandom(SMALL) for n in range(options.files)
        },
        f"{options.files} files of {SMALL} bytes, log lines": {
            b"l%d" % n: log_lines(SMALL) for n in range(options.files)
        },
    }
    print("KVM" if kvm_works()[0] else "software emulation (TCG)", "load", *(f"{load:.1f}" for load in os.getloadavg()))
    with (
        tempfile.TemporaryDirectory(prefix="lanfree-bench-") as name,
        Lab.up(Path(name) / "lab", machines=(MACHINE,), hosts=1) as lab,
    ):
        site = KvmSite(
            [KvmHost(h.name, h.uri, str(lab.shared)) for h in lab.hosts], state=StateDirectory(Path(name) / "state")
        )
        machine = lab.host_of(MACHINE).virsh("domuuid", MACHINE).text.strip()
        for kind, contents in kinds.items():
            with site.guest_files(machine, ROOT) as files:
                seconds = sent(files, contents)
            total = sum(map(len, contents.values()))
            first = next(iter(contents))
            digest = lab.guest_run(MACHINE, ["sha256sum", f"{ROOT.decode()}/{first.decode()}"])[1].split()[0].decode()
            assert digest == hashlib.sha256(contents[first]).hexdigest(), "it is not what was sent"
            print(
                f"{kind:45} {seconds:6.1f} s {total / seconds / 1e6:7.2f} MB/s {len(contents) / seconds:8.1f} files/s"
            )
        site.close()


if __name__ == "__main__":
    main()
