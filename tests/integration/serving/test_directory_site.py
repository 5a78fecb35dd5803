"""The site that the tests of serving processes share is held to the contract of every hypervisor."""

from pathlib import Path

import pytest

from proxy.hypervisor.memory import Guest
from proxy.model import PowerState, Tracking
from proxy.ports import DiskPlace
from tests.contract.test_hypervisor import *  # noqa: F403  # the contract itself
from tests.integration.serving.directory_site import DirectorySite

pytestmark = pytest.mark.tools


class DirectoryRig:
    """As ``MemoryRig``."""

    def __init__(self, directory: Path):
        self.hypervisor = DirectorySite(directory)
        self.running = self.hypervisor.add("runs", {"vda": bytes(range(256)) * 64})
        self.off = self.hypervisor.add("sleeps", {"vda": bytes(4096)}, state=PowerState.OFF)
        self.disk = "vda"
        self.place = DiskPlace(path="memory:new")
        self.host, self.other_host = "h1", "h2"

    def guest_writes(self):
        with self.hypervisor.touch(self.running) as site:
            site.write(self.running, "vda", 100, b"written by the guest")

    def frozen_bytes(self, disk):
        return self.hypervisor.disk_bytes(disk.layers[0].location.path)

    def start_without_agent(self):
        with self.hypervisor.touch(self.off) as site:
            site.set_guest(self.off, Guest.NO_AGENT)
            site.set_state(self.off, PowerState.RUNNING)

    def start_and_stop(self):
        with self.hypervisor.touch(self.off) as site:
            site.set_state(self.off, PowerState.RUNNING)
        self.stop()

    def stop(self):
        with self.hypervisor.touch(self.off) as site:
            site.set_state(self.off, PowerState.OFF)

    def hold_readers(self, held: bool):
        with self.hypervisor.touch(self.running) as site:
            site.readers = {self.running} if held else set()

    def leftovers(self):
        return list(self.hypervisor.leftovers) + self.hypervisor.open_in_ledger()

    def silence_all(self):
        self.hypervisor.silence({"h1", "h2"})

    def forget_new(self):
        self.hypervisor.remove(NEW)  # noqa: F405

    def roll(self, rolls: bool):
        self.hypervisor.remove(self.running)
        tracking = Tracking.LAYER if rolls else Tracking.HYPERVISOR
        self.running = self.hypervisor.add("rolls", {"vda": bytes(8192)}, tracking=tracking)


@pytest.fixture
def rig(tmp_path: Path):
    made = DirectoryRig(tmp_path / "site")
    yield made
    made.hypervisor.silence(())
    assert made.leftovers() == []


@pytest.fixture
def rolling_rig(rig):
    return rig
