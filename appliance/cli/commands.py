"""Which modules hold which command. Only those are imported that the words of a command line may mean: what a program imports
is most of the time of a short one, and every command has its own libraries."""

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
    "verify": ("points",),
    "vm": ("machines",),
    "why-big": ("why",),
}
"""Word -> modules beside this one. Commands are in the help's order when all modules are imported in the order of theirs."""

HELP = frozenset({"-h", "--help"})


def register(words: Sequence[str]) -> None:
    """Import what may be asked for: the modules of every word that is a command's name, wherever it stands. All of them
    where help comes first, or no word is a command's."""
    named = [word for word in words if word in COMMANDS or word in HELP]
    asked = COMMANDS if not named or named[0] in HELP else named
    for module in sorted({module for word in asked for module in COMMANDS.get(word, ())}):
        import_module(f"{__package__}.{module}")
