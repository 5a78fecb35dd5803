"""The immutability helper's systemd units fit its command line and give it what it needs and no more."""

import re
from pathlib import Path

import pytest

import appliance.immutable
from appliance.immutable.__main__ import arguments, main

UNITS = Path(appliance.immutable.__file__).parent


def words(text: str, key: str) -> list[str]:
    found = re.search(rf"^{key}=(.*)$", text, re.MULTILINE)
    assert found is not None, key
    return found.group(1).split()


def test_the_service_starts_the_helper_with_words_that_it_knows() -> None:
    command = words((UNITS / "lanfree-immutable.service").read_text(), "ExecStart")
    begin = command.index("appliance.immutable")
    assert command[begin - 1] == "-m"
    filled = [{"${ROOT}": "/backup", "${MINIMUM_DAYS}": "14"}.get(word, word) for word in command[begin + 1 :]]
    given = arguments(filled)
    assert (given.root, given.minimum_days, given.user) == ([Path("/backup")], 14.0, "lanfree")


def test_the_service_has_four_capabilities_and_is_nobody_else() -> None:
    text = (UNITS / "lanfree-immutable.service").read_text()
    needed = ["CAP_LINUX_IMMUTABLE", "CAP_FOWNER", "CAP_DAC_READ_SEARCH", "CAP_LEASE"]
    assert words(text, "CapabilityBoundingSet") == words(text, "AmbientCapabilities") == needed
    assert words(text, "User") == ["lanfree-immutable"]
    assert words(text, "NoNewPrivileges") == ["yes"]


def test_the_socket_is_the_group_of_the_proxys_and_where_the_helper_expects_it() -> None:
    text = (UNITS / "lanfree-immutable.socket").read_text()
    assert words(text, "SocketMode") == ["0660"]
    assert words(text, "SocketGroup") == ["lanfree"]
    given = arguments(["--root", "/backup", "--user", "lanfree", "--minimum-days", "1"])
    assert words(text, "ListenStream") == [str(given.socket)]


@pytest.mark.parametrize(
    ("days", "user", "root", "why"),
    [
        ("0", "root", "here", "minimum-days"),
        ("-1", "root", "here", "minimum-days"),
        ("400", "root", "here", "minimum-days"),
        ("nan", "root", "here", "minimum-days"),
        ("14", "nobody-of-this-name", "here", "nobody-of-this-name"),
        ("14", "root", "none", "none"),
        ("14", "root", "link", "symbolic link"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, days: str, user: str, root: str, why: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    state = tmp_path / "state"
    given = ["--root", str(tmp_path / root), "--user", user, "--minimum-days", days, "--state", str(state)]
    assert main([*given, "--socket", str(tmp_path / "socket")]) == 1
    assert why in capsys.readouterr().err
    assert not state.exists()
