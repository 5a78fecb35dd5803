"""A process that takes a snapshot and ends it as sealed, and dies as by kill -9 before its N-th change to the outside.

Arguments: JSON with ``hosts`` (name, uri, overlay directory), ``state``, ``rolling``, ``machine``, ``run``, ``since``; and N.
Changes are calls to libvirt that do not only read, deleted files, and records that are written or removed. With ``emulator``
(its process' id) it dies in the middle of the N-th: the emulator is stopped beforehand, so that libvirt is still at it.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.kvm.connection import Host
from proxy.hypervisor.kvm.records import Records
from proxy.model import QuiescePolicy, SnapshotRequest
from proxy.state_directory import StateDirectory

# Seconds until a call that was begun is known to be with libvirt.
BEGUN = 0.5


class Countdown:
    def __init__(self, left: int, emulator: int | None = None) -> None:
        self.left = left
        self.emulator = emulator

    def step(self) -> None:
        if self.left == 0:
            self.die()
        self.left -= 1

    def die(self) -> None:
        if self.emulator is None:
            os._exit(9)  # nothing is flushed, no handler runs
        os.kill(self.emulator, signal.SIGSTOP)
        threading.Timer(BEGUN, os._exit, (9,)).start()


def watch(countdown: Countdown) -> None:
    call, save, forget = Host.call, Records.save, Records.forget

    def counted_call(self, what, work, *, reads=True):
        if not reads or what.startswith("delete file"):
            countdown.step()
        return call(self, what, work, reads=reads)

    def counted_save(self, record):
        countdown.step()
        save(self, record)

    def counted_forget(self, run):
        countdown.step()
        forget(self, run)

    Host.call, Records.save, Records.forget = counted_call, counted_save, counted_forget


def main() -> None:
    asked, number = json.loads(sys.argv[1]), int(sys.argv[2])
    watch(Countdown(number, asked.get("emulator")))
    site = KvmSite(
        [KvmHost(*host) for host in asked["hosts"]],
        state=StateDirectory(Path(asked["state"])),
        rolling_overlay=asked["rolling"],
    )
    request = SnapshotRequest(
        asked["run"],
        asked["machine"],
        ("vda",),
        quiesce=QuiescePolicy(asked.get("quiesce", QuiescePolicy.NEVER)),
        since=asked["since"],
    )
    site.release(site.snapshot(request), sealed=True)


if __name__ == "__main__":
    main()
