"""Which modules hold which command. Only those are imported that the words of a command line may mean: what a program imports
is most of the time of a short one, and every command has its own libraries."""

import os
from collections.abc import Mapping, Sequence
from importlib import import_module

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "access-log": ("history",),
    "audit": ("repository",),
    "backup": ("machines",),
    "bootstrap": ("bootstrap",),
    "catalog": ("site",),
    "collect": ("repository",),
    "copy": ("repository",),
    "coverage": ("coverage",),
    "database": ("database",),
    "demo": ("lab",),
    "doctor": ("site",),
    "export": ("export",),
    "files": ("files", "history", "push"),
    "host": ("site",),
    "impact": ("impact",),
    "init": ("site",),
    "job": ("jobs", "job_files", "job_runs", "job_report"),
    "key": ("keys",),
    "lab": ("lab",),
    "login": ("login",),
    "logout": ("login",),
    "mount": ("mount",),
    "mounts": ("mount",),
    "notify": ("notify",),
    "plan": ("plan",),
    "point": ("keeping",),
    "points": ("points",),
    "protect": ("protect",),
    "proxies": ("proxies",),
    "prune": ("repository",),
    "repair": ("repository",),
    "report": ("repository",),
    "rescue": ("repository",),
    "restore": ("points",),
    "serve": ("serve",),
    "status": ("status",),
    "sweep": ("site",),
    "umount": ("mount",),
    "unlock": ("unlock",),
    "user": ("users",),
    "verify": ("points",),
    "vm": ("machines",),
    "web": ("web",),
    "why-big": ("why",),
}
"""Word -> modules beside this one. Commands are in the help's order when all modules are imported in the order of theirs."""

HELP = frozenset({"-h", "--help"})

SERVER = "LANFREE_SERVER"
"""Variable of the environment that says what ``--server`` does."""

SIGNING_IN = frozenset({"login", "logout"})
"""Commands about servers, whichever of the two is asked."""


def register(words: Sequence[str]) -> None:
    """Import what may be asked for: the modules of every word that is a command's name, wherever it stands. All of them
    where help comes first, or no word is a command's."""
    named = [word for word in words if word in COMMANDS or word in HELP]
    asked = COMMANDS if not named or named[0] in HELP else named
    for module in sorted({module for word in asked for module in _modules(word, over=_asks_a_server(words))}):
        import_module(f"{__package__}.{module}")


def _modules(word: str, *, over: bool) -> tuple[str, ...]:
    """``over``: to a server; a command that cannot be asked for there says so itself."""
    if not over:
        return COMMANDS.get(word, ())
    from appliance.cli.remote import REMOTE  # noqa: PLC0415  # local commands do without

    remote = tuple(f"remote.{module}" for module in REMOTE.get(word, ()))
    return remote or (("login",) if word in SIGNING_IN else ("remote.here_only",) if word in COMMANDS else ())


def _asks_a_server(words: Sequence[str]) -> bool:
    return bool(os.environ.get(SERVER)) or any(word == "--server" or word.startswith("--server=") for word in words)
