"""The note that a bootstrap leaves while files take their places: who finds it knows what had begun, and goes on with nothing
else."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy.durable import replace_durably, sync_directory
from proxy.model import RestorePointId

NAME = "bootstrap.unfinished"
"""In the state directory."""


class Begun(BaseModel):
    """``point`` of ``repository`` (its id, hexadecimal) on its way to the configuration file ``target``. ``draft``: how names
    of files end that are not whole yet."""

    model_config = ConfigDict(frozen=True)
    point: RestorePointId
    repository: str
    target: Path
    draft: str

    def same(self, other: "Begun | None") -> bool:
        """Whether it is the same work, begun at another time."""
        return other is not None and other.model_copy(update={"draft": self.draft}) == self


def begun(state: Path) -> Begun | None:
    """What had begun here and did not end; ``None`` too for a note that says nothing. Raises ``OSError``."""
    try:
        return Begun.model_validate_json((state / NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def note(state: Path, what: Begun) -> None:
    """From here on names change."""
    replace_durably(state / NAME, what.model_dump_json().encode())


def ended(state: Path) -> None:
    """All of it is there."""
    (state / NAME).unlink()
    sync_directory(state)
