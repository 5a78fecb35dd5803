"""What is granted and what is not."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.immutable.attribute import Refusal, is_immutable, opened, protect, unprotect
from appliance.immutable.deadlines import Deadlines
from appliance.immutable.trusted_time import BootClock, TrustedTime


@dataclass(frozen=True, slots=True)
class Rules:
    """``roots`` of repositories; user ids whose files may be kept (``owners``); ``minimum`` and ``maximum`` seconds."""

    roots: tuple[Path, ...]
    owners: frozenset[int]
    minimum: float
    maximum: float


class Keeper:
    """Sets and clears the attribute by the rules. Calls may come from many threads; they are carried out one by one.

    The deadline is committed before the attribute is set, and forgotten after it is cleared and that is synced: wherever the
    helper is killed or the power goes, no file is immutable without a deadline, and every deadline that was confirmed has its
    attribute after ``go_on``.
    """

    def __init__(self, rules: Rules, deadlines: Deadlines, clock: BootClock) -> None:
        self._rules = rules
        self._deadlines = deadlines
        self._time = TrustedTime(deadlines.last_mark(), clock)
        self._lock = threading.Lock()

    def go_on(self) -> None:
        """Finish what was begun when the helper ended, and begin to count the time anew."""
        with self._lock:
            self._deadlines.keep_mark(self._time.mark())
            for root, inode, name in self._deadlines.undone():
                self._finish(root, inode, name)

    def tick(self) -> None:
        """Keep the time that has passed; to be called every minute."""
        with self._lock:
            self._deadlines.keep_mark(self._time.mark())

    def retain(self, root: str, name: str, seconds: float) -> float:
        """Keep the file for ``seconds`` from now, the minimum at least. Returns for how long it is kept, in seconds."""
        place = self._root(root)
        if not seconds <= self._rules.maximum:  # this way round a number that is none is refused as well
            raise Refusal("limit", f"files are kept for {self._rules.maximum / 86400:g} days at most")
        with self._lock, opened(place, name, self._rules.owners) as file:
            inode = os.fstat(file).st_ino
            known = self._deadlines.until(root, inode)
            if known is None and is_immutable(file):
                raise Refusal("denied", "the file is immutable already, and not by this helper")
            mark = self._time.mark()
            until = self._deadlines.extend(root, inode, name, mark.trusted + max(seconds, self._rules.minimum), mark)
            try:
                protect(file)
            except Refusal:
                if known is None:
                    self._deadlines.forget(root, inode)
                raise
            self._deadlines.done(root, inode)
            return until - mark.trusted

    def release(self, root: str, name: str) -> None:
        """Clear the attribute of a file whose time is over. Raises ``Refusal`` otherwise."""
        place = self._root(root)
        with self._lock, opened(place, name, self._rules.owners) as file:
            inode = os.fstat(file).st_ino
            until = self._deadlines.until(root, inode)
            left = 0.0 if until is None else until - self._time.now()
            if left > 0:
                protect(file)  # it is; unless somebody with the right to do so has cleared it by hand
                raise Refusal("retained", "its time is not over", left)
            if until is None and is_immutable(file):
                raise Refusal(
                    "denied", "this helper has not made it immutable, or has lost its memory of it: see adopt"
                )
            unprotect(file)
            self._deadlines.forget(root, inode)

    def adopt(self) -> int:
        """Give every immutable file beneath the roots that has no deadline the minimum from now. Returns how many."""
        adopted = 0
        for root in self._rules.roots:
            for name in _files(root):
                with self._lock, suppress(Refusal), opened(root, name, self._rules.owners) as file:
                    inode = os.fstat(file).st_ino
                    if is_immutable(file) and self._deadlines.until(str(root), inode) is None:
                        mark = self._time.mark()
                        self._deadlines.extend(str(root), inode, name, mark.trusted + self._rules.minimum, mark)
                        self._deadlines.done(str(root), inode)
                        adopted += 1
        return adopted

    def status(self) -> dict[str, float]:
        """For the doctor: seconds, and the number of files kept."""
        with self._lock:
            return {"time": self._time.now(), "kept": self._deadlines.count(), "minimum": self._rules.minimum}

    def _root(self, root: str) -> Path:
        for place in self._rules.roots:
            if str(place) == root:
                return place
        raise Refusal("root", "that is none of the helper's repositories")

    def _finish(self, root: str, inode: int, name: str) -> None:
        # What is refused here was confirmed to nobody: whoever asked got no answer.
        with suppress(Refusal), opened(self._root(root), name, self._rules.owners) as file:
            if os.fstat(file).st_ino == inode:
                try:
                    protect(file)
                except Refusal:
                    if not is_immutable(file):
                        raise
                    # It was set when the helper ended, and stays: with the deadline, which lets it go one day.
                os.fsync(file)  # also if it was set already: by a helper that was killed before it synced it
                self._deadlines.done(root, inode)
                return
        self._deadlines.forget(root, inode)


def _files(root: Path, folder: str = "") -> Iterator[str]:
    with os.scandir(root / folder) as entries:
        children = list(entries)
    for child in children:
        if child.name.startswith("."):
            continue
        mode = child.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _files(root, f"{folder}{child.name}/")
        elif stat.S_ISREG(mode):
            yield folder + child.name
