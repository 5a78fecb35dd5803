"""What tests of the simulated vCenter ask it with: pyVmomi as it is, and plain HTTPS for leases. Nothing of the product's."""

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from tests.system.vcsim.lab import VcsimLab

UNCHECKED = ssl._create_unverified_context()


class Client:
    """A session. ``vm(name)`` looks anew each time."""

    def __init__(self, lab: VcsimLab) -> None:
        self.service = SmartConnect(host=lab.host, port=lab.port, user=lab.user, pwd=lab.password, sslContext=UNCHECKED)
        self.content = self.service.RetrieveContent()

    def all(self, kind: Any) -> list[Any]:
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        return list(view.view or [])

    def vm(self, name: str) -> Any:
        return next(vm for vm in self.all(vim.VirtualMachine) if vm.name == name)

    def snapshot(self, machine: Any, *, quiesce: Any = None, name: str = "test") -> Any:
        return done(machine.CreateSnapshotEx_Task(name=name, description="", memory=False, quiesceSpec=quiesce))

    def remove(self, snapshot: Any) -> None:
        done(snapshot.RemoveSnapshot_Task(removeChildren=False))

    def track(self, machine: Any) -> None:
        done(machine.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))


@contextmanager
def connected(lab: VcsimLab) -> Iterator[Client]:
    client = Client(lab)
    yield client
    Disconnect(client.service)


def ended(task: Any) -> Any:
    """The information of a task when it is over."""
    end = time.monotonic() + 20
    while task.info.state not in {"success", "error"}:
        assert time.monotonic() < end, "the task did not end"
        time.sleep(0.02)
    return task.info


def done(task: Any) -> Any:
    info = ended(task)
    assert info.state == "success", info.error
    return info.result


def failed(task: Any) -> str:
    """The fault's name of a task that must fail."""
    info = ended(task)
    assert info.state == "error", "the task succeeded"
    return type(info.error).__name__.rpartition(".")[2]


def disks(config: Any) -> dict[int, Any]:
    """Device key -> backing."""
    return {d.key: d.backing for d in config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)}


def areas(machine: Any, key: int, since: str, snapshot: Any) -> list[tuple[int, int]]:
    """All pages of QueryChangedDiskAreas; their coverage is checked on the way."""
    size = next(d.capacityInBytes for d in machine.config.hardware.device if d.key == key)
    found, at = [], 0
    while at < size:
        told = machine.QueryChangedDiskAreas(snapshot=snapshot, deviceKey=key, startOffset=at, changeId=since)
        assert told.startOffset == at
        assert told.length > 0
        found += [(area.start, area.length) for area in told.changedArea or []]
        at += told.length
    assert at == size
    return found


def ready(lease: Any) -> Any:
    """The lease's information, or its error."""
    end = time.monotonic() + 20
    while lease.state == "initializing":
        assert time.monotonic() < end, "the lease did not become ready"
        time.sleep(0.02)
    return lease.info if lease.state == "ready" else lease.error


def fetched(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    """HTTP status and body; with ``data`` it is sent by POST."""
    request = urllib.request.Request(url, data=data, method="GET" if data is None else "POST")
    try:
        with urllib.request.urlopen(request, context=UNCHECKED, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
