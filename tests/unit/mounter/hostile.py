"""File systems that misbehave, to be opened in a worker process."""

import os
import threading
from collections.abc import Mapping
from typing import Any

from mounter.memory import MemoryFilesystem


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
