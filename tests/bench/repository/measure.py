"""One measurement: a program in a process of its own, and what it took."""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy import command
from proxy.units import KiB, MiB

LAUNCHER = Path(__file__).with_name("launcher.py")

# A peer that hangs must not eat the ten minutes; the slowest takes less than a minute on a busy machine.
DEADLINE = 300.0


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: ``env`` is added to the environment, ``cwd`` is where."""

    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds of the whole process (``wall``, ``cpu``), its peak memory in MiB (``rss``), what it stored in MiB.

    ``work``: seconds that the program itself says its work took, without starting up; ``wall`` if it says nothing.
    """

    wall: float
    cpu: float
    rss: float
    work: float
    stored: float = 0.0


def measure(what: Command, stored: Path | None = None) -> Figures:
    """Run it. ``stored``: a directory or file whose growth in bytes counts as stored. Dirty pages are written afterwards, so
    that nobody pays for the one before. Raises ``ToolFailed`` with what the program said."""
    before = size_of(stored) if stored else 0
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-") as scratch:
        result = Path(scratch) / "figures"
        words = [sys.executable, "-I", "-S", LAUNCHER, result, *what.argv]
        moved = ["env", "-C", what.cwd, *words] if what.cwd else words
        done = command.run(moved, timeout=DEADLINE, env=what.env)
        figures = json.loads(result.read_text())
    os.sync()
    return Figures(
        wall=figures["wall"],
        cpu=figures["cpu"],
        rss=figures["rss"] / KiB,
        work=_said(done.stdout, figures["wall"]),
        stored=(size_of(stored) - before) / MiB if stored else 0.0,
    )


def prepare(what: Command) -> str:
    """Run something that is not measured; what it printed."""
    words = ["env", "-C", what.cwd, *what.argv] if what.cwd else what.argv
    return command.run(words, timeout=DEADLINE, env=what.env).text


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a directory; holes do not count."""
    if path.is_dir():
        return sum(size_of(each) for each in path.iterdir())
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return min(status.st_size, status.st_blocks * 512)


def median(values: Iterable[float]) -> float:
    """Of what there is; not a number if there is nothing."""
    known = list(values)
    return statistics.median(known) if known else float("nan")


def _said(output: bytes, otherwise: float) -> float:
    """``seconds`` of the JSON object that our own programs print as their last line."""
    lines = output.strip().splitlines()
    try:
        return float(json.loads(lines[-1])["seconds"])
    except (ValueError, KeyError, TypeError, IndexError):
        return otherwise
