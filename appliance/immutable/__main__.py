"""``python -m appliance.immutable --root /backup --user lanfree --minimum-days 14``; the package's text says what it does."""

import argparse
import fcntl
import os
import pwd
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from appliance.immutable.attribute import Refusal
from appliance.immutable.deadlines import Deadlines
from appliance.immutable.keeper import Keeper, Rules
from appliance.immutable.server import Server, handed_over, listen
from appliance.immutable.trusted_time import BootClock, KernelBootClock

DAY = 86400.0


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lanfree-immutable", description="Keeps files of a repository immutable.")
    add = parser.add_argument
    add(
        "--root", type=Path, action="append", required=True, help="a repository's directory; may be given several times"
    )
    add("--user", required=True, help="the proxy's user: who may ask, and whose files may be kept")
    add("--minimum-days", type=float, required=True, help="nothing is kept for less")
    # Above every usual retention; a proxy that was taken over can fill the disk for so long at most.
    add("--maximum-days", type=float, default=366.0, help="nothing is kept for more: what is set cannot be taken back")
    add("--socket", type=Path, default=Path("/run/lanfree-immutable.sock"), help="unless systemd hands one over")
    add("--state", type=Path, default=Path("/var/lib/lanfree-immutable"), help="the helper's own directory")
    add("--adopt", action="store_true", help="first give immutable files without a deadline the minimum from now")
    return parser.parse_args(words)


def main(words: Sequence[str], clock: BootClock | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0, or 1 with a message."""
    given = arguments(words)
    try:
        return run(given, clock or KernelBootClock())
    except (OSError, KeyError, ValueError, sqlite3.Error, Refusal) as error:
        print(f"lanfree-immutable: {error}", file=sys.stderr)
        return 1


def run(given: argparse.Namespace, clock: BootClock) -> int:
    user = pwd.getpwnam(given.user)
    rules = _rules(given, frozenset({user.pw_uid, 0}))
    given.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A lease that somebody breaks is announced by this signal, which would end us.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    lock = os.open(given.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however that ends
    except BlockingIOError:
        raise FileExistsError(f"another helper uses {given.state}") from None
    deadlines = Deadlines(given.state / "deadlines.sqlite")
    keeper = Keeper(rules, deadlines, clock)
    listener = handed_over() or listen(given.socket, user.pw_gid)
    with listener:
        server = Server(keeper, listener, rules.owners)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: server.stop())
        if given.adopt:
            print(f"adopted {keeper.adopt()} files", file=sys.stderr, flush=True)
        server.serve()
    deadlines.close()
    return 0


def _rules(given: argparse.Namespace, owners: frozenset[int]) -> Rules:
    roots = tuple(root.resolve(strict=True) for root in given.root)
    for asked, root in zip(given.root, roots, strict=True):
        if asked != root:
            raise ValueError(f"--root {asked} leads through a symbolic link to {root}: name that")
    if not 0 < given.minimum_days <= given.maximum_days:
        raise ValueError("--minimum-days must be above 0 and not above --maximum-days")
    return Rules(roots, owners, given.minimum_days * DAY, given.maximum_days * DAY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
