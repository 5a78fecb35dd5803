"""A process that takes a snapshot and ends it as sealed, and dies as by kill -9 before its N-th change to the outside.

Arguments: JSON with ``hosts`` (name, uri, overlay directory), ``state``, ``rolling``, ``machine``, ``run``, ``since``; and N.
Changes are calls to libvirt that do not only read, deleted files, and records that are written or removed.
"""

import json
import os
import sys
from pathlib import Path

from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.kvm.connection import Host
from proxy.hypervisor.kvm.records import Records
from proxy.model import QuiescePolicy, SnapshotRequest
from proxy.state_directory import StateDirectory


class Countdown:
    def __init__(self, left: int) -> None:
        self.left = left

    def step(self) -> None:
        if self.left == 0:
            os._exit(9)  # nothing is flushed, no handler runs
        self.left -= 1


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
    watch(Countdown(number))
    site = KvmSite(
        [KvmHost(*host) for host in asked["hosts"]],
        state=StateDirectory(Path(asked["state"])),
        rolling_overlay=asked["rolling"],
    )
    request = SnapshotRequest(
        asked["run"], asked["machine"], ("vda",), quiesce=QuiescePolicy.NEVER, since=asked["since"]
    )
    site.release(site.snapshot(request), sealed=True)


if __name__ == "__main__":
    main()
