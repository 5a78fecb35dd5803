"""The immutability helper's trusted time and its memory: nothing that needs privileges."""

import ast
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import appliance.immutable
from appliance.immutable import attribute
from appliance.immutable.deadlines import Deadlines
from appliance.immutable.trusted_time import KernelBootClock, Mark, TrustedTime
from proxy.repository.stores import names

DAY = 86400.0


class FakeClock:
    """A boot clock that a test moves."""

    def __init__(self, boot: str = "one", booted: float = 100.0) -> None:
        self.boot = boot
        self.booted = booted

    def seconds(self) -> float:
        return self.booted

    def boot_id(self) -> str:
        return self.boot


def test_time_begins_at_zero_and_advances_with_the_boot_clock() -> None:
    clock = FakeClock()
    trusted = TrustedTime(None, clock)
    assert trusted.now() == 0
    clock.booted += 5
    assert trusted.now() == 5


def test_a_helper_that_starts_again_in_the_same_boot_loses_nothing() -> None:
    clock = FakeClock()
    before = TrustedTime(None, clock)
    clock.booted += 10
    mark = before.mark()
    clock.booted += 3600  # killed, and started again much later
    assert TrustedTime(mark, clock).now() == 3610


def test_after_a_reboot_only_the_time_since_it_is_added() -> None:
    clock = FakeClock()
    before = TrustedTime(None, clock)
    clock.booted += 1000
    mark = before.mark()
    # Off for a year, or for a second: nothing tells.
    after = FakeClock("two", 30.0)
    assert TrustedTime(mark, after).now() == 1030


def test_a_boot_clock_that_goes_back_adds_nothing() -> None:
    clock = FakeClock(booted=500)
    trusted = TrustedTime(Mark(50.0, "one", 900.0), clock)
    assert trusted.now() == 50
    clock.booted = 400
    assert trusted.now() == 50
    clock.booted = 520
    assert trusted.now() == 70


def test_the_wall_clock_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = TrustedTime(None, KernelBootClock())
    before = trusted.now()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(time, "time_ns", lambda: 4 * 10**18)
    assert trusted.now() - before < 60
    for module in Path(appliance.immutable.__file__).parent.glob("*.py"):
        used = {node.attr for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Attribute)}
        assert not used & {"time_ns", "CLOCK_REALTIME", "utcnow", "today", "st_mtime", "st_ctime", "st_atime"}, module
        assert "datetime" not in module.read_text(), module


@pytest.mark.slow
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("runs"), st.floats(0, 1e6)),
            st.tuples(st.just("killed"), st.floats(0, 1e6)),
            st.tuples(st.just("rebooted"), st.floats(0, 1e9)),
            st.tuples(st.just("clock back"), st.floats(0, 1e5)),
        ),
        max_size=30,
    )
)
def test_trusted_time_never_passes_real_time_and_never_goes_back(events: list[tuple[str, float]]) -> None:
    clock = FakeClock(booted=0.0)
    trusted = TrustedTime(None, clock)
    real = last = 0.0
    mark = trusted.mark()
    for number, (event, seconds) in enumerate(events):
        if event == "rebooted":  # off for so long; what was not kept is lost
            real += seconds
            clock = FakeClock(f"boot {number}", 0.0)
            trusted = TrustedTime(mark, clock)
            last = min(last, mark.trusted)
        elif event == "clock back":
            clock.booted = max(clock.booted - seconds, 0.0)
        else:
            real += seconds
            clock.booted += seconds
            if event == "killed":
                trusted = TrustedTime(mark, clock)
        now = trusted.now()
        assert last - 1e-3 <= now <= real + 1e-3
        last = now
        mark = trusted.mark()


def test_deadlines_outlast_the_process_and_are_never_shortened(tmp_path: Path) -> None:
    path = tmp_path / "deadlines.sqlite"
    deadlines = Deadlines(path)
    mark = Mark(10.0, "one", 100.0)
    assert deadlines.last_mark() is None
    assert deadlines.extend("/backup", 7, "packs/00/a", 500.0, mark) == 500.0
    assert deadlines.extend("/backup", 7, "packs/00/a", 300.0, mark) == 500.0
    assert deadlines.extend("/other", 7, "packs/00/a", 300.0, mark) == 300.0
    assert list(deadlines.undone()) == [("/backup", 7, "packs/00/a"), ("/other", 7, "packs/00/a")]
    deadlines.done("/backup", 7)
    deadlines.close()
    again = Deadlines(path)
    assert again.last_mark() == mark
    assert again.until("/backup", 7) == 500.0
    assert again.until("/backup", 8) is None
    assert list(again.undone()) == [("/other", 7, "packs/00/a")]
    assert again.extend("/backup", 7, "packs/00/a", 900.0, mark) == 900.0
    assert list(again.undone()) == [("/other", 7, "packs/00/a")]
    again.forget("/other", 7)
    assert again.count() == 1
    again.close()


def test_what_was_confirmed_is_there_after_the_process_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from appliance.immutable.deadlines import Deadlines;"
        "from appliance.immutable.trusted_time import Mark; d = Deadlines(Path(sys.argv[1]));"
        "d.extend('/backup', 7, 'a', 500.0, Mark(10.0, 'one', 100.0)); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "deadlines.sqlite"
    killed = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert killed.returncode == -9
    deadlines = Deadlines(path)
    assert deadlines.until("/backup", 7) == 500.0
    deadlines.close()


def test_a_damaged_memory_is_refused_and_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "deadlines.sqlite"
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(sqlite3.Error):
        Deadlines(path)
    assert path.read_bytes() == b"rubbish" * 1000


def test_the_helper_uses_the_standard_library_alone() -> None:
    for module in Path(appliance.immutable.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                found = [node.module or ""]
            for name in found:
                assert name.startswith("appliance.immutable") or name.split(".")[0] in sys.stdlib_module_names, module


def test_names_mean_the_same_to_the_proxy_and_to_the_helper() -> None:
    assert attribute._NAME.pattern == names._NAME.pattern
    assert attribute._LONGEST_NAME == names.LONGEST
