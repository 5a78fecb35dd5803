"""What of ``Services`` has to be made anew when the settings change under it, and what becomes of the parts before."""

import threading
import time
from collections.abc import MutableMapping
from functools import cached_property
from typing import Any, Self, TypeVar, overload

from appliance.config import Settings

T = TypeVar("T")

LATE = 300.0
"""Seconds after which nobody asks a part any more that was replaced: a question to a hypervisor takes a minute at most."""

_HYPERVISORS = frozenset({"host", "vcenter", "kvm", "san", "raw", "backup"})
_TELLING = frozenset({"notify", "reports"})

_MADE_OF = (
    (_HYPERVISORS, ("hypervisor", "transports", "reach", "fabric", "_files", "_kvm", "vcenters")),
    (_TELLING, ("telling",)),
)
"""Sections of the settings, and parts that are made from them."""

_HOLD = ("_kvm", "vcenters")
"""Parts that hold connections; the others only speak through these."""


class part(cached_property[T]):  # noqa: N801  # used as cached_property is
    """What is made of settings that may change: none is kept of settings that were replaced while it was made. Whoever has
    such parts holds its lock ``making`` while it takes new settings."""

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Self | T:
        """As ``cached_property``, alone."""
        if instance is None:
            return self
        making: threading.RLock = vars(instance)["making"]
        with making:
            return super().__get__(instance, owner)


class Former:
    """Parts that were replaced; requests that began before may still ask them."""

    def __init__(self) -> None:
        self._parts: list[tuple[float, Any]] = []

    def replace(self, parts: MutableMapping[str, Any], old: Settings, new: Settings) -> None:
        """Take those out that the new settings concern. ``parts``: by name, as they were made."""
        changed = {name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)}
        now = time.monotonic()
        self._close([part for at, part in self._parts if now - at > LATE])
        self._parts = [(at, part) for at, part in self._parts if now - at <= LATE]
        for sections, names in _MADE_OF:
            if changed & sections:
                taken = {name: parts.pop(name, None) for name in names}
                self._parts += [(now, taken[name]) for name in _HOLD if taken.get(name) is not None]

    def close(self) -> None:
        """Let go of all of them."""
        self._close([part for _, part in self._parts])
        self._parts.clear()

    @staticmethod
    def _close(parts: list[Any]) -> None:
        for part in parts:
            part.close()
