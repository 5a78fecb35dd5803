"""How the process of API and console ends while people read from it: when it is told to, and when what started it is killed."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config_file import ConfigurationFile
from appliance.web import server, supervise
from tests.integration.web.process.file_site import FileSite
from tests.integration.web.process.web_process import LONG, until

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600), pytest.mark.requires("nbdkit", "mke2fs")]

SLACK = 5.0
"""Seconds that a busy machine may need beside what the process gives itself."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FileSite]:
    """Nothing of it runs yet."""
    made = FileSite(tmp_path)
    yield made
    made.close()


def _ended(process: "subprocess.Popen[bytes]", sign: signal.Signals) -> float:
    """Seconds until it has ended."""
    begun = time.monotonic()
    process.send_signal(sign)
    process.wait(LONG)
    return time.monotonic() - begun


def test_it_ends_by_itself_within_seconds_while_an_event_stream_and_a_download_are_open(site: FileSite) -> None:
    web = site.start("web")
    busy = site.busy(site.running()["port"])
    took = _ended(web, signal.SIGTERM)
    assert web.returncode == 0
    assert "the console ended" in site.said(), "it is not the last resort that ended it"
    assert took < server.INSIST_SECONDS + SLACK
    assert not (site.base / "state" / "web" / "running.json").exists()
    busy.assert_cut_off()


def test_serve_ends_its_console_within_seconds_while_people_read(site: FileSite) -> None:
    serve = site.start("serve")
    console = site.running()
    busy = site.busy(console["port"])
    took = _ended(serve, signal.SIGTERM)
    assert serve.returncode == 0
    assert "the console ended" in site.said()
    assert took < supervise.END_SECONDS + SLACK
    assert not _lives(console["pid"])
    busy.assert_cut_off()


def test_a_killed_serve_leaves_no_console_behind_and_its_port_is_the_next_ones(site: FileSite) -> None:
    serve = site.start("serve")
    console = site.running()
    busy = site.busy(console["port"])
    _ended(serve, signal.SIGKILL)
    assert serve.returncode == -signal.SIGKILL
    # Whoever restarts services does it at once: the port may still be held for a moment.
    ConfigurationFile(site.file).change({("web", "address"): f"127.0.0.1:{console['port']}"})
    site.start("serve")
    until(lambda: not _lives(console["pid"]), "the console of the killed one ended")
    assert site.running(besides=console["pid"])["port"] == console["port"]
    busy.assert_cut_off()


def test_a_killed_console_leaves_no_port_and_no_disk_server_behind(site: FileSite) -> None:
    web = site.start("web")
    port = site.running()["port"]
    busy = site.busy(port)
    _ended(web, signal.SIGKILL)
    busy.assert_cut_off()
    with socket.create_server(("127.0.0.1", port)) as taken:
        assert taken.getsockname()[1] == port


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
