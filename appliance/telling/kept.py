"""Reports of job runs, kept as HTML files in the state directory, a bounded number of them."""

import re
from datetime import UTC, datetime
from pathlib import Path

from proxy.durable import replace_durably
from proxy.units import MiB

# All of them together. A run of 10,000 machines makes a report of some MiB, and a state directory is no archive.
MOST_BYTES = 512 * MiB

_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")


class Kept:
    """``directory``: made when the first report comes; ``keep``: so many of the newest. Raises ``OSError``."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, job: str, run: str, at: datetime, text: str) -> str:
        """The file's name, which holds no character of meaning whatever a job is called."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}_{_safe(job)[:40]}_{_safe(run)[:80]}.html"
        replace_durably(self._directory / name, text.encode())
        self._prune()
        return name

    def path(self, name: str) -> Path | None:
        """Where it is; ``None`` for one that is not there any more."""
        found = self._directory / name
        return found if name and found.parent == self._directory and found.is_file() else None

    def _prune(self) -> None:
        newest = sorted(self._directory.glob("*.html"), reverse=True)
        room = MOST_BYTES
        for number, file in enumerate(newest):
            room -= file.stat().st_size
            if number and (number >= self._keep or room < 0):
                file.unlink(missing_ok=True)


def _safe(text: str) -> str:
    return _UNSAFE.sub("-", text).strip("-.") or "x"
