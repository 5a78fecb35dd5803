"""Rules of the whole suite.

- ``@pytest.mark.requires("tgtd", "root", "module:guestfs")`` (or the fixture ``requires``) names what a test needs: a
  program, ``root``, or a module. Without it the test is skipped, with its name.
- A skip is not a pass: with ``REQUIRE=all`` in the environment every skip, of whatever origin, is a failure; with
  ``REQUIRE=tgtd,root`` those needs may not be missing. ``make test`` sets ``REQUIRE=all``.
- Tests that boot guests run one at a time and first, in whichever worker takes them, if there are several workers; those
  that boot libguestfs appliances likewise, beside them.
- Where neither tools nor slow tests are asked for, the modules that hold nothing else are not even read.
- Whatever a test started or mounted is gone when the session ends: what is left fails the session, and is ended.
"""

import gc
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

# Seconds for processes that are still ending when the session does; longer ones were not waited for by their test.
GRACE = 3.0

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

HERE = Path(__file__).parent

# Containers like to forbid the cache of compiled modules, to stay small. To rewrite the asserts of the whole suite and to
# compile the product takes a quarter of the fast suite's time: it is done once, and then for what was changed.
sys.dont_write_bytecode = False

# Put into PATH, which every descendant inherits: libvirtd hands it on to QEMU while it clears the rest of the
# environment. No such directory exists, so nothing is found in it.
MARK = f"/nonexistent/lanfree-tests-{os.getpid()}-{os.urandom(4).hex()}"


# Where guests are booted, below this directory.
GUESTS = (
    "system/",
    "integration/hypervisor/",
    "integration/lab/",
    "contract/test_hypervisor.py",
    "contract/test_guest_files.py",
    "contract/test_meters.py",
)
WITHOUT = ("integration/hypervisor/vsphere/", "system/oidc/", "system/vcsim/")

# Where libguestfs boots its appliances: beside the guests, one at a time too.
APPLIANCES = ("integration/mounter/", "contract/test_guest_filesystem.py")

# What plain "pytest" selects (pyproject.toml); where all tests are marked "tools" or "slow", which tests/unit/test_project.py
# holds them to; and how a module says so of itself.
FAST = "not tools and not slow"
NEVER_FAST = ("integration", "system")
ALL_SLOW = b"\npytestmark = pytest.mark.slow\n"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """To read modules only to deselect every test of them would take several seconds. Those that are named on the command
    line are read in any case: pytest does not ask for them."""
    if config.getoption("markexpr") != FAST or not collection_path.is_relative_to(HERE):
        return None
    place = collection_path.relative_to(HERE).parts
    never = bool(place) and place[0] in NEVER_FAST
    return never or (collection_path.suffix == ".py" and ALL_SLOW in collection_path.read_bytes()) or None


def pytest_collection_finish() -> None:
    """Modules and tests live to the end: no garbage collection during the tests needs to look at them again and again."""
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires(*needs): programs, 'root' or 'module:NAME'; see tests/conftest.py")
    config.pluginmanager.register(LabsEnd())
    path = os.environ.get("PATH", "")
    # An ordinary user's PATH lacks the directories where tgtd and mke2fs are.
    missing = [part for part in SYSTEM_PATH.split(":") if part not in path.split(":")]
    os.environ["PATH"] = ":".join([path, *missing, MARK])


def lacks(need: str) -> str:
    """Why ``need`` is not met, or an empty string."""
    if need == "root":
        return "" if os.geteuid() == 0 else "not running as root"
    if need.startswith("module:"):
        name = need.removeprefix("module:")
        return "" if importlib.util.find_spec(name) is not None else f"no module {name}"
    return "" if shutil.which(need) else f"{need} is not installed"


def must_have(*needs: str) -> None:
    """Skip unless every need is met; fail where ``REQUIRE`` asks for it."""
    asked = os.environ.get("REQUIRE", "").split(",")
    for need in needs:
        why = lacks(need)
        if why and (need in asked or "all" in asked):
            pytest.fail(f"{why} (REQUIRE={os.environ['REQUIRE']})", pytrace=False)
        if why:
            pytest.skip(why)


def boots(test: str) -> str:
    """What a test boots, if anything. ``test``: node id, with or without the directory of the suite in front."""
    file = test.partition("::")[0].removeprefix("tests/")
    if file.startswith(GUESTS) and not file.startswith(WITHOUT):
        return "guests"
    return "appliances" if file.startswith(APPLIANCES) else ""


def shared(test: str) -> str:
    """What runs in one worker: the file of a test, or the test alone. ``test``: as for ``boots``."""
    return test if test.removeprefix("tests/").startswith("unit/") else test.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First, because they end last: what is spread over the other workers fills the time beside them."""
    items.sort(key=lambda item: ("guests", "appliances", "").index(boots(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Every unit test for itself, others with the rest of their file (servers, browsers and whole stories are made once a
    module), those that boot something as one. xdist's own groups do nothing with pytest 9.2 (xdist 3.8)."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415  # not there in a suite that runs without plugins

    class OneGuestAtATime(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return boots(nodeid) or shared(nodeid)

    return OneGuestAtATime(config, log)


class LabsEnd:
    """What the conftest of a directory of guests makes for all its tests ends with the last of them, and not with the session:
    emulated guests take a good part of a processor even when nothing is asked of them. A plugin, since pytest does not ask a
    conftest about fixtures of the session."""

    def __init__(self) -> None:
        self._made: list[tuple[Any, Any]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        made = yield
        if fixturedef.scope == "session" and boots(f"{fixturedef.baseid}/") == "guests":
            self._made.append((fixturedef, request))
        return made

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
        done = yield
        while self._made and (nextitem is None or nextitem.path.parent != item.path.parent):
            fixture, request = self._made.pop()
            fixture.finish(request)
        return done


@pytest.fixture
def requires() -> Callable[..., None]:
    """``requires("tgtd", "root")``: as the marker, for needs that are known only while the test runs."""
    return must_have


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires"):
        must_have(*marker.args)


def _all_required() -> bool:
    return "all" in os.environ.get("REQUIRE", "").split(",")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and _all_required() and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{why} (a skip is a failure: REQUIRE={os.environ['REQUIRE']})"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and _all_required():
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr} (a skip is a failure: REQUIRE={os.environ['REQUIRE']})"
    return report


def _marked_processes() -> Iterator[tuple[int, str]]:
    """Processes that inherited our mark: started by this session, directly or through any number of daemons."""
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        try:
            if MARK.encode() in (directory / "environ").read_bytes():
                words = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if "multiprocessing.resource_tracker" not in words:  # Python's own; ends with this process
                    yield int(directory.name), words[:160]
        except OSError:
            continue  # gone meanwhile, or another user's


def _our_mounts(base: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        if Path(point).is_relative_to(base):
            yield point


def _our_loop_devices(base: Path) -> Iterator[str]:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = file.read_text().strip()
        except OSError:
            continue  # detached meanwhile
        if Path(backing).is_relative_to(base):
            yield f"/dev/{file.parts[3]} on {backing}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look for what is left; it is reported by ``pytest_terminal_summary`` and makes the session fail. With several workers
    it is the session that started them which looks, when they have ended: nobody asks how a worker's own session ended,
    and what a worker starts inherits the marks of both."""
    if hasattr(session.config, "workerinput"):
        return
    factory: pytest.TempPathFactory | None = getattr(session.config, "_tmp_path_factory", None)
    base = factory.getbasetemp() if factory is not None else Path(tempfile.gettempdir()) / MARK
    left = [f"mount {point}" for point in _our_mounts(base)] + [f"loop {device}" for device in _our_loop_devices(base)]
    # What was told to end may need a moment (QEMU flushes, libguestfs shuts its appliance down).
    deadline = time.monotonic() + GRACE
    while any(_marked_processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, words in _marked_processes():
        left.append(f"process {pid}: {words}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    session.config.stash[LEFT] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


LEFT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash.get(LEFT, [])
    if left:
        terminalreporter.section("LEFT BEHIND by the tests (processes were killed)", red=True, bold=True)
        for line in left:
            terminalreporter.write_line(line)
