"""state.json: everything that ``status`` and ``down`` need in another process, written before anything is started."""

import fcntl
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from proxy.errors import ConfigurationError, FormatError

NAME = "state.json"
LOCK = "state.lock"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class LunRecord:
    """One LUN: its number in all targets and the size of its backing file in bytes."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class State:
    """What a lab is. ``run``: short directory for Unix sockets; ``port``: the array's TCP port on both portals."""

    lab: str
    run: Path
    port: int
    hosts: tuple[str, ...]
    luns: tuple[LunRecord, ...] = ()


class StateFile:
    """The state of the lab in one directory. Several processes may update it; a lock orders them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / NAME

    def create(self, state: State) -> None:
        """Raises ``ConfigurationError`` when the directory holds a lab already."""
        try:
            with self.path.open("x") as file:
                file.write(_text(state))
        except FileExistsError:
            raise ConfigurationError(
                str(self.directory), "holds a lab already", hint="end it with 'lanfree lab down' or take another one"
            ) from None

    def read(self) -> State:
        """Raises ``ConfigurationError`` when there is no lab, ``FormatError`` when the file is not ours."""
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            raise ConfigurationError(
                str(self.directory), "holds no lab", hint="start one with 'lanfree lab up'"
            ) from None
        except ValueError as error:
            raise FormatError(str(self.path), f"is not JSON: {error}") from None
        try:
            if found["version"] != _VERSION:
                raise FormatError(str(self.path), f"has version {found['version']}, not {_VERSION}")
            luns = tuple(LunRecord(**lun) for lun in found["luns"])
            return State(found["lab"], Path(found["run"]), found["port"], tuple(found["hosts"]), luns)
        except (KeyError, TypeError) as error:
            raise FormatError(str(self.path), f"lacks or misspells a field: {error}") from None

    def update(self, change: Callable[[State], State]) -> State:
        """Read, change and write back as one step among all processes. Returns the new state."""
        with (self.directory / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = change(self.read())
            draft = self.path.with_suffix(".new")
            draft.write_text(_text(state))
            draft.replace(self.path)
            return state


def with_lun(state: State, lun: LunRecord) -> State:
    """The state with one more LUN."""
    return replace(state, luns=(*state.luns, lun))


def without_lun(state: State, number: int) -> State:
    """The state with one LUN less; a number that is not there changes nothing."""
    return replace(state, luns=tuple(lun for lun in state.luns if lun.number != number))


def _text(state: State) -> str:
    return json.dumps({"version": _VERSION, **asdict(state)}, default=str, indent=2) + "\n"
