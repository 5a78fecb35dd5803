"""File systems that misbehave, to be opened in a worker process."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import Volume
from proxy.errors import FastPathRefused


def never_opens(_argument: Mapping[str, Any]) -> MemoryFilesystem:
    """An appliance that hangs while it starts, with a child process as QEMU would be."""
    if os.fork() == 0:
        threading.Event().wait()
    threading.Event().wait()
    raise AssertionError


class _Hangs(MemoryFilesystem):
    def volumes(self) -> Any:
        """Fine."""
        return []

    def operating_systems(self) -> Any:
        """Fine."""
        return []


def opens_and_dies_later(argument: Mapping[str, Any]) -> MemoryFilesystem:
    """Crashes some time after it was opened."""
    threading.Timer(argument["seconds"], os._exit, (3,)).start()
    return _Hangs([])


def raises(_argument: Mapping[str, Any]) -> MemoryFilesystem:
    """As an unexpected bug would."""
    raise ZeroDivisionError("hostile")


def refuses(_argument: Mapping[str, Any]) -> MemoryFilesystem:
    """As the fast path does with what is not for it."""
    raise FastPathRefused("lvm", "/dev/sda2 is a physical volume")


def shows_its_keys(argument: Mapping[str, Any]) -> MemoryFilesystem:
    """A volume with what the worker was given: its keys, and all that others could see of it."""
    volume = MemoryVolume(Volume("v", "/dev/sda", "ext4", "", "", 0, "/"))
    for key in argument["keys"]:
        volume.add_file(b"/keys/" + key.volume.encode(), key.secret)
    for name in ("cmdline", "environ"):
        volume.add_file(b"/seen/" + name.encode(), Path(f"/proc/self/{name}").read_bytes())
    return MemoryFilesystem([volume])
