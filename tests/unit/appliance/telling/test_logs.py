import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from appliance.telling.logs import bound, set_up
from appliance.telling.settings import Log

LOG = logging.getLogger("appliance.test")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_what_it_is_about(written: io.StringIO) -> None:
    set_up(Log(), written)
    with bound(proxy="p1", job="nightly"), bound(run="b1", machine="web"):
        LOG.info("%d bytes", 5, extra={"event": "task-done", "machine": "db"})
    LOG.warning("outside")
    first, second = lines(written)
    assert first.pop("ts").endswith("Z")
    assert first == {
        "level": "info",
        "event": "task-done",
        "message": "5 bytes",
        "job": "nightly",
        "run": "b1",
        "machine": "db",
        "proxy": "p1",
        "logger": "appliance.test",
    }
    assert set(second) == {"ts", "level", "message", "logger"}


def test_threads_do_not_see_what_others_are_about(written: io.StringIO) -> None:
    set_up(Log(), written)
    together = threading.Barrier(4)

    def work(number: int) -> None:
        with bound(run=f"b{number}"):
            together.wait(60)
            LOG.info("%d", number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((line["run"], line["message"]) for line in lines(written)) == [(f"b{n}", str(n)) for n in range(4)]


def test_a_message_of_several_lines_is_one_line(written: io.StringIO) -> None:
    set_up(Log(), written)
    LOG.error('a"b\nlevel: "x" \x1b[31m \udcff')
    (line,) = lines(written)
    assert line["message"] == 'a"b\nlevel: "x" \x1b[31m \udcff'
    assert written.getvalue().count("\n") == 1
    written.getvalue().encode("ascii")


def test_an_exception_is_kept_with_its_trace(written: io.StringIO) -> None:
    set_up(Log(), written)
    try:
        raise ValueError("https://user:geheim99@host/ refused")
    except ValueError:
        LOG.exception("it broke")
    (line,) = lines(written)
    assert "test_logs.py" in line["error"]
    assert "https://********@host/ refused" in line["error"]
    assert "geheim99" not in written.getvalue()


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://lanfree:geheim99@db/lanfree",
        "Authorization: Bearer geheim99",
        "{'authorization': 'Basic geheim99'}",
        "Cookie: geheim99",
    ],
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_what_looks_like_a_secret_is_masked(written: io.StringIO, secret: str, form: Any) -> None:
    set_up(Log(format=form), written)
    LOG.error("refused: %s", secret)
    assert "geheim99" not in written.getvalue()
    assert "********" in written.getvalue()


def test_libraries_that_write_requests_are_quiet_even_when_we_are_loud(written: io.StringIO) -> None:
    set_up(Log(level="debug"), written)
    for name in ("botocore.auth", "urllib3.connectionpool", "sqlalchemy.engine"):
        logging.getLogger(name).debug("a signed request")
    LOG.debug("ours")
    assert [line["message"] for line in lines(written)] == ["ours"]


def test_text_for_people_keeps_strangers_from_writing_lines_of_their_own(written: io.StringIO) -> None:
    set_up(Log(format="text"), written)
    with bound(run="b1"):
        LOG.warning("name\n2026-01-01 error run=b2 forged")
    first, second = written.getvalue().splitlines()
    assert "warning run=b1 name" in first
    assert second.startswith("    ")


def test_a_level_leaves_out_what_is_below_it(written: io.StringIO) -> None:
    set_up(Log(level="warning"), written)
    LOG.info("no")
    LOG.warning("yes")
    assert [line["message"] for line in lines(written)] == ["yes"]
