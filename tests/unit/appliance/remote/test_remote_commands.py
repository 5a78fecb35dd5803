"""The commands that ask a server are those that ask this machine: same words, same options."""

import json
import subprocess
import sys

import pytest

from appliance.cli.commands import COMMANDS, SIGNING_IN
from appliance.cli.remote import HERE_ONLY, REMOTE

# Options that only mean something on the machine itself, and what stands in place of them.
ONLY_HERE = {
    ("audit",): {"noted"},  # files of the machine itself
    ("backup",): {"every", "select", "besides"},  # many machines are what a job is for
    ("collect",): {"patience", "despite_missing"},  # a task goes on by itself; lost chunks are decided at the machine
    ("copy",): {"make"},  # a second repository is made at the machine
    ("doctor",): {"deep", "lab"},
    ("files", "get"): {
        "everything", "format_", "one_file_system", "existing", "owner", "set_id", "specials", "key_file"
    },
    ("files", "ls"): {"key_file"},  # keys do not go over the network
    ("files", "push"): {"guest_user", "guest_password_file"},
    ("host", "add"): {"check"},  # the server always tries
    ("access-log", "check"): {"head"},
    ("job", "run"): {"here"},
    ("plan",): {"why"},
    ("point", "delete"): {"repository"},
    ("point", "hold"): {"repository"},
    ("point", "release"): {"repository"},
    ("proxies",): {"probe"},
    ("verify",): {"max_age"},
}  # fmt: skip
ONLY_THERE = {"wait"}
"""Whoever asks a server may leave; on the machine itself the command is the work."""
MORE_THERE = {("restore",): {"dry_run"}}
MISSING_WORDS = {
    ("files", "holding"),  # 'files versions' tells it
    ("point", "forget"),
    ("notify", "list"),
}

_TREE = """
import sys, json
import typer
from appliance.cli import app, commands
commands.register(["--help", *sys.argv[1:]])
def walk(command, words):
    subs = getattr(command, "commands", None)
    if subs:
        for name, sub in subs.items():
            yield from walk(sub, (*words, name))
    else:
        yield words, sorted(p.name for p in command.params if p.name not in ("help",))
print(json.dumps([[list(w), p] for w, p in walk(typer.main.get_command(app.app), ())]))
"""


def _tree(*words: str) -> dict[tuple[str, ...], set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _TREE, *words], capture_output=True, text=True, check=True, timeout=120
    )
    return {tuple(command): set(options) for command, options in json.loads(done.stdout)}


@pytest.mark.slow
def test_each_remote_command_has_the_options_of_the_one_here() -> None:
    here, there = _tree(), _tree("--server=https://example")
    remote = {words for words in there if words[0] in REMOTE}
    assert len(remote) > 30
    for words in remote:
        assert words in here, f"{words} is no command here"
        own = MORE_THERE.get(words, set())
        extra = there[words] - here[words] - ONLY_THERE - own
        assert not extra, f"{words} has options there that it has not here: {extra}"
        assert here[words] - there[words] == ONLY_HERE.get(words, set()), words
    assert {words for words in here if words[0] in REMOTE and words not in remote} == MISSING_WORDS


def test_every_command_is_either_asked_there_or_says_why_not() -> None:
    assert set(REMOTE) | set(HERE_ONLY) | SIGNING_IN == set(COMMANDS)
    assert not set(REMOTE) & set(HERE_ONLY)
    assert all(HERE_ONLY.values())
