"""Which modules a command line imports."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from typer.models import CommandInfo

from appliance.cli import app, commands

pytestmark = pytest.mark.slow


def name_of(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.name or command.callback.__name__.replace("_", "-")


def registered() -> Iterator[tuple[str, str]]:
    """Each word of the command line with each module that has a part in it."""
    for command in app.app.registered_commands:
        yield name_of(command), command.callback.__module__  # type: ignore[union-attr]
    for group in app.app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            yield str(group.name), command.callback.__module__  # type: ignore[union-attr]


def test_every_command_is_found_in_its_modules() -> None:
    commands.register([])
    found: dict[str, set[str]] = {}
    for word, module in registered():
        found.setdefault(word, set()).add(module.removeprefix("appliance.cli."))
    assert found == {word: set(modules) for word, modules in commands.COMMANDS.items()}


def test_no_word_has_two_meanings() -> None:
    commands.register([])
    words = [name_of(command) for command in app.app.registered_commands]
    words += [str(group.name) for group in app.app.registered_groups]
    inside = [
        f"{group.name} {name_of(command)}"
        for group in app.app.registered_groups
        if group.typer_instance is not None
        for command in group.typer_instance.registered_commands
    ]
    assert [word for word, times in Counter(words + inside).items() if times > 1] == []


def imported(*words: str) -> set[str]:
    """Modules that are there when a process has registered what these words may mean."""
    code = "import sys; from appliance.cli import app, commands; commands.register(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_one_command_imports_its_own_modules_and_no_others() -> None:
    names = {name for name in imported("--config", "x", "key", "list") if name.startswith("appliance.cli.")}
    assert names == {f"appliance.cli.{name}" for name in ("app", "commands", "keys", "output")}


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--help",), ("-h", "points"), ("frobnicate",)])
def test_help_and_mistakes_know_all_commands(words: tuple[str, ...]) -> None:
    modules = {f"appliance.cli.{module}" for several in commands.COMMANDS.values() for module in several}
    assert modules <= imported(*words)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("points",), ("vm", "list"), ("key", "list"), ("restore", "x"), ("host", "list"), ("backup",)]
)
def test_commands_leave_the_heavy_libraries_to_those_who_use_them(words: tuple[str, ...]) -> None:
    heavy = {"numpy", "sqlalchemy", "alembic", "dbos", "boto3", "botocore", "pyVmomi", "libvirt", "guestfs", "psutil"}
    assert imported(*words) & heavy == set()
