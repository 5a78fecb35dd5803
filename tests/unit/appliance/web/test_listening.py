"""Where the console listens."""

import errno
import json
import os
import socket
from dataclasses import asdict
from pathlib import Path

import pytest

from appliance.config_web import Web
from appliance.web import listening
from appliance.web.listening import Running
from proxy.errors import ConfigurationError


def test_everywhere_is_ipv4_and_ipv6() -> None:
    with listening.listen(Web(address=":0")) as made:
        port = made.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        if made.family == socket.AF_INET6:
            with socket.create_connection(("::1", port), timeout=5):
                pass


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    with (
        listening.listen(Web(address="127.0.0.1:0")) as first,
        pytest.raises(ConfigurationError, match="is taken") as refused,
    ):
        listening.listen(Web(address=f"127.0.0.1:{first.getsockname()[1]}"))
    assert "ss -ltnp" in refused.value.hint


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        listening.listen(Web(address="192.0.2.77:0"))


def test_a_process_that_runs_is_found_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    assert listening.found(tmp_path) is None
    with listening.told(tmp_path, Running("https://x", 1, os.getpid())):
        assert listening.found(tmp_path) == Running("https://x", 1, os.getpid())
        (tmp_path / "running.json").write_text('{"url": "https://x", "port": 1, "pid": 4194999}')
        assert listening.found(tmp_path) is None
        (tmp_path / "running.json").write_text("half")
        assert listening.found(tmp_path) is None


def test_who_may_not_read_the_note_finds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    with listening.told(tmp_path, Running("https://x", 1, os.getpid())), monkeypatch.context() as another_user:
        another_user.setattr(Path, "read_bytes", refused)
        assert listening.found(tmp_path) is None


def test_who_ends_takes_only_its_own_note_along(tmp_path: Path) -> None:
    first, second = (Running(f"https://{name}", 1, os.getpid()) for name in "xy")
    with listening.told(tmp_path, second):
        with listening.told(tmp_path, first):
            (tmp_path / "running.json").write_text(json.dumps(asdict(second)))  # started while the first one ended
        assert listening.found(tmp_path) == second
    assert not (tmp_path / "running.json").exists()
