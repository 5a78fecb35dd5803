"""Local immutability for real: the attribute on a real file system, the helper as a process that is killed and attacked."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.immutable.attribute import Refusal
from appliance.immutable.deadlines import Deadlines
from appliance.immutable.keeper import Keeper, Rules
from appliance.immutable.trusted_time import KernelBootClock, Mark
from proxy import command
from proxy.errors import ConfigurationError, ObjectRetained, RepositoryUnavailable
from proxy.repository import PosixStore
from proxy.repository.stores.immutable import ImmutabilityClient, is_immutable
from proxy.units import MiB
from tests.integration.repository.immutability import Helper, immutability_helper, make_mutable

pytestmark = [pytest.mark.tools, pytest.mark.requires("root")]

DAY = 86400.0
MONTH = timedelta(days=30)

# Nobody's on any machine.
STRANGER = 54321


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "backup"
    path.mkdir()
    yield path
    make_mutable(path)


@pytest.fixture
def helper(tmp_path: Path, root: Path) -> Iterator[Helper]:
    """With a minimum of 14 days, under a boot clock that the test moves."""
    with immutability_helper(tmp_path / "helper", root, minimum=14 * DAY, boot=True) as running:
        yield running


@pytest.fixture
def store(root: Path, helper: Helper) -> PosixStore:
    return PosixStore(root, retainer=helper.client())


def days_left(store: PosixStore, name: str) -> float:
    """As the refusal to delete it tells."""
    with pytest.raises(ObjectRetained) as kept:
        store.delete(name)
    assert kept.value.until is not None
    return (kept.value.until - datetime.now(UTC)).total_seconds() / DAY


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_nobody_can_alter_or_remove_a_retained_file_not_even_root(root: Path, store: PosixStore) -> None:
    store.put("packs/00/a", b"the only copy")
    store.retain("packs/00/a", in_days(30))
    path = root / "packs/00/a"
    for attack in (
        path.unlink,
        lambda: path.write_bytes(b"rubbish"),
        lambda: os.truncate(path, 0),
        lambda: path.rename(root / "elsewhere"),
        lambda: os.link(path, root / "second"),
        lambda: path.chmod(0o777),
        lambda: os.utime(path, (0, 0)),
        lambda: os.chown(path, STRANGER, STRANGER),
        lambda: (root / "other").write_bytes(b"") or (root / "other").rename(path),
        lambda: shutil.rmtree(root / "packs"),
    ):
        with pytest.raises(PermissionError):
            attack()
    assert store.get("packs/00/a") == b"the only copy"
    assert is_immutable(path)


def test_a_period_is_raised_to_the_minimum_and_never_shortened(store: PosixStore) -> None:
    store.put("packs/00/a", b"data")
    store.retain("packs/00/a", in_days(1))
    assert days_left(store, "packs/00/a") == pytest.approx(14, abs=0.1)
    store.retain("packs/00/a", in_days(30))
    assert days_left(store, "packs/00/a") == pytest.approx(30, abs=0.1)
    store.retain("packs/00/a", in_days(2))
    assert days_left(store, "packs/00/a") == pytest.approx(30, abs=0.1)


def test_the_file_is_let_go_when_the_time_has_really_passed(root: Path, helper: Helper, store: PosixStore) -> None:
    store.put("packs/00/a", b"data")
    store.retain("packs/00/a", in_days(14))
    helper.set_clock("first", 1000 + 13.9 * DAY)
    assert days_left(store, "packs/00/a") == pytest.approx(0.1, abs=0.01)
    helper.set_clock("first", 1000 + 14.1 * DAY)
    assert is_immutable(root / "packs/00/a")  # until somebody asks
    store.delete("packs/00/a")
    assert not (root / "packs/00/a").exists()


def test_a_proxy_whose_wall_clock_was_set_forward_gets_nothing_earlier(
    root: Path, helper: Helper, store: PosixStore
) -> None:
    """In a process of its own, whose every wall clock says 2090: what an attacker reaches by NTP."""
    store.put("packs/00/a", b"data")
    store.retain("packs/00/a", in_days(14))
    script = (
        "import sys, time, datetime; from pathlib import Path;"
        "real = datetime.datetime;"
        "fake = type('datetime', (real,), {'now': classmethod(lambda c, tz=None: real(2090, 1, 1, tzinfo=tz))});"
        "datetime.datetime = fake; time.time = lambda: 3786912000.0;"
        "from proxy.repository.stores.posix import PosixStore;"
        "from proxy.repository.stores.immutable import ImmutabilityClient;"
        "from proxy.errors import ObjectRetained;"
        "s = PosixStore(Path(sys.argv[1]), retainer=ImmutabilityClient(Path(sys.argv[2]), Path(sys.argv[1])));"
        "s.retain('packs/00/a', fake.now(datetime.UTC) + datetime.timedelta(days=20));\n"
        "try: s.delete('packs/00/a')\n"
        "except ObjectRetained as e: print(e.until.isoformat())"
    )
    told = command.run([sys.executable, "-c", script, root, helper.socket], timeout=60).text
    assert told.startswith("2090-01-2")  # 20 days of its own calendar
    assert days_left(store, "packs/00/a") == pytest.approx(20, abs=0.1)


def test_a_helper_that_is_killed_goes_on_where_it_was(helper: Helper, store: PosixStore) -> None:
    store.put("packs/00/a", b"data")
    store.retain("packs/00/a", in_days(14))
    helper.set_clock("first", 1000 + 5 * DAY)
    helper.kill()
    with pytest.raises(RepositoryUnavailable, match="does not answer"):
        store.delete("packs/00/a")
    helper.set_clock("first", 1000 + 10 * DAY)
    helper.start()
    assert days_left(store, "packs/00/a") == pytest.approx(4, abs=0.1)
    helper.kill()
    # Off for years, says whoever asks the battery clock; 3 days up since.
    helper.set_clock("second", 3 * DAY)
    helper.start()
    assert days_left(store, "packs/00/a") == pytest.approx(1, abs=0.1)
    helper.set_clock("second", 4.1 * DAY)
    store.delete("packs/00/a")


def test_a_helper_killed_at_any_moment_keeps_every_promise(root: Path, helper: Helper, store: PosixStore) -> None:
    """Killed while requests come in. What it confirmed is immutable after the restart; what is immutable has a deadline."""
    confirmed: list[str] = []
    for number in range(24):
        store.put(f"packs/00/{number:02}", b"data")
    for number in range(24):
        if number % 4 == 3:
            assert helper.process is not None
            # The request is on its way when the helper is killed.
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(str(helper.socket))
                request = {"op": "retain", "root": str(root), "name": f"packs/00/{number:02}", "seconds": 1.0}
                connection.sendall(json.dumps(request).encode() + b"\n")
                time.sleep(0.0007 * number)  # another moment each time
                helper.kill()
                with suppress(ConnectionResetError):  # the kernel's word for a request that was never read
                    if connection.recv(1000):
                        confirmed.append(f"packs/00/{number:02}")
            helper.start()
        else:
            store.retain(f"packs/00/{number:02}", in_days(14))
            confirmed.append(f"packs/00/{number:02}")
    for name in store.list("packs/"):
        if name in confirmed:
            assert is_immutable(root / name)
        if is_immutable(root / name):
            assert days_left(store, name) == pytest.approx(14, abs=0.1)
        else:
            store.delete(name)
    assert len(confirmed) >= 18


def test_what_somebody_cleared_by_hand_is_set_again(root: Path, store: PosixStore) -> None:
    store.put("packs/00/a", b"data")
    store.retain("packs/00/a", in_days(14))
    make_mutable(root)
    store.retain("packs/00/a", in_days(14))
    assert is_immutable(root / "packs/00/a")


def test_a_second_helper_does_not_start(tmp_path: Path, root: Path, helper: Helper) -> None:
    words = [sys.executable, "-m", "appliance.immutable", "--root", root, "--user", "root", "--minimum-days", "1"]
    same_state = command.run(
        [*words, "--state", helper.directory / "state", "--socket", tmp_path / "other"], timeout=20, check=False
    )
    assert same_state.code == 1
    assert "another helper uses" in same_state.stderr
    same_socket = command.run(
        [*words, "--state", tmp_path / "state", "--socket", helper.socket], timeout=20, check=False
    )
    assert same_socket.code == 1
    assert "another helper" in same_socket.stderr
    assert helper.client().status()["minimum"] == 14 * DAY


def test_a_helper_without_its_memory_lets_nothing_go_until_it_adopts(helper: Helper, store: PosixStore) -> None:
    store.put("packs/00/a", b"data")
    store.put("packs/00/b", b"data")
    store.retain("packs/00/a", in_days(30))
    helper.stop()
    shutil.rmtree(helper.directory / "state")
    helper.start()
    with pytest.raises(ConfigurationError, match="adopt"):
        store.delete("packs/00/a")
    helper.stop()
    helper.start("--adopt")
    assert "adopted 1 files" in helper.log()
    assert days_left(store, "packs/00/a") == pytest.approx(14, abs=0.1)


def test_a_file_that_is_open_for_writing_or_has_a_second_name_is_not_promised(root: Path, store: PosixStore) -> None:
    store.put("packs/00/a", b"data")
    with (root / "packs/00/a").open("r+b") as writer:
        with pytest.raises(RepositoryUnavailable, match="open for writing"):
            store.retain("packs/00/a", in_days(14))
        writer.write(b"DATA")
    os.link(root / "packs/00/a", root / "second")
    with pytest.raises(RepositoryUnavailable, match="second name"):
        store.retain("packs/00/a", in_days(14))
    assert not is_immutable(root / "packs/00/a")
    (root / "second").unlink()
    store.retain("packs/00/a", in_days(14))
    assert is_immutable(root / "packs/00/a")


def test_a_refused_request_takes_nothing_from_what_was_promised(root: Path, store: PosixStore) -> None:
    """Somebody with the right to do so cleared the attribute by hand, gave the file a second name, and set it again."""
    path = root / "packs/00/a"
    store.put("packs/00/a", b"data")
    store.retain("packs/00/a", in_days(14))
    make_mutable(root)
    os.link(path, root / "second")
    command.run(["chattr", "+i", path], timeout=10)
    with pytest.raises(RepositoryUnavailable, match="second name"):
        store.retain("packs/00/a", in_days(30))
    assert is_immutable(path)


def test_what_was_set_when_the_helper_ended_does_not_stay_without_a_deadline(tmp_path: Path, root: Path) -> None:
    """It was killed after it had set the attribute, and before it saw that the file is open for writing."""
    path, name, clock = root / "packs/00/a", "packs/00/a", KernelBootClock()
    PosixStore(root).put(name, b"data")
    deadlines = Deadlines(tmp_path / "deadlines")
    deadlines.extend(str(root), path.stat().st_ino, name, DAY, Mark(0.0, clock.boot_id(), clock.seconds()))
    keeper = Keeper(Rules((root,), frozenset({os.geteuid()}), DAY, 30 * DAY), deadlines, clock)
    with path.open("r+b"):
        command.run(["chattr", "+i", path], timeout=10)
        keeper.go_on()
    assert is_immutable(path)
    with pytest.raises(Refusal) as refused:
        keeper.release(str(root), name)
    assert refused.value.code == "retained"
    assert refused.value.seconds == pytest.approx(DAY, abs=60)
    deadlines.close()


def small_disk(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(16 * MiB)
    command.run(["mkfs.ext4", "-q", image], timeout=30)


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Whatever is not synced stays in memory for minutes."""
    place.mkdir()
    command.run(["mount", "-o", "loop,commit=300", image, place], timeout=30)
    try:
        yield place
    finally:
        command.run(["umount", place], timeout=30)


@pytest.mark.requires("mkfs.ext4")
def test_a_promise_that_was_confirmed_outlasts_a_power_cut(tmp_path: Path) -> None:
    """The helper's own memory is on another file system, as it is in the field."""
    image, afterwards = tmp_path / "disk", tmp_path / "disk-after-the-power-cut"
    small_disk(image)
    with (
        mounted(image, tmp_path / "backup") as place,
        immutability_helper(tmp_path / "helper", place, minimum=14 * DAY) as helper,
    ):
        store = PosixStore(place, retainer=helper.client())
        store.put("packs/00/a", b"the only copy")
        store.retain("packs/00/a", in_days(14))
        shutil.copyfile(image, afterwards)  # all that the disk was given until now
    with mounted(afterwards, tmp_path / "rebooted") as place:
        assert is_immutable(place / "packs/00/a")
        assert PosixStore(place).get("packs/00/a") == b"the only copy"


@pytest.mark.requires("mkfs.ext4")
def test_what_a_killed_helper_had_set_and_not_synced_outlasts_a_power_cut(tmp_path: Path) -> None:
    image, afterwards = tmp_path / "disk", tmp_path / "disk-after-the-power-cut"
    small_disk(image)
    name, clock, deadlines = "packs/00/a", KernelBootClock(), Deadlines(tmp_path / "deadlines")
    with mounted(image, tmp_path / "backup") as place:
        PosixStore(place).put(name, b"the only copy")
        mark = Mark(0.0, clock.boot_id(), clock.seconds())
        deadlines.extend(str(place), (place / name).stat().st_ino, name, DAY, mark)
        command.run(["chattr", "+i", place / name], timeout=10)
        Keeper(Rules((place,), frozenset({os.geteuid()}), DAY, 30 * DAY), deadlines, clock).go_on()
        assert list(deadlines.undone()) == []
        shutil.copyfile(image, afterwards)
    deadlines.close()
    with mounted(afterwards, tmp_path / "rebooted") as place:
        assert is_immutable(place / name)


class LateAnswer(ImmutabilityClient):
    """The helper keeps the file, and the answer comes too late."""

    def retain(self, name: str, duration: timedelta) -> None:
        super().retain(name, duration)
        raise RepositoryUnavailable("the helper", "timed out")


def test_an_object_that_is_kept_although_the_answer_was_lost_is_told_by_the_first_error(
    root: Path, helper: Helper
) -> None:
    store = PosixStore(root, retainer=LateAnswer(helper.socket, root), retain_for=MONTH)
    with pytest.raises(RepositoryUnavailable, match="timed out"):
        store.put("packs/00/a", b"data")
    assert days_left(store, "packs/00/a") == pytest.approx(30, abs=0.1)


class LooksElsewhere(ImmutabilityClient):
    """Its root has the repository's path, and another file system is mounted there."""

    def release(self, name: str) -> None:
        raise FileNotFoundError(name)


def test_an_object_that_the_helper_does_not_see_is_not_told_as_gone(
    root: Path, helper: Helper, store: PosixStore
) -> None:
    store.put("packs/00/a", b"data")
    store.retain("packs/00/a", in_days(14))
    with pytest.raises(RepositoryUnavailable, match="does not see object packs/00/a"):
        PosixStore(root, retainer=LooksElsewhere(helper.socket, root)).delete("packs/00/a")
    assert store.get("packs/00/a") == b"data"


def asked(helper: Helper, data: bytes) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(helper.socket))
        connection.sendall(data)
        with connection.makefile("rb") as lines:
            answer: dict[str, object] = json.loads(lines.readline())
            return answer


def test_no_name_leads_to_another_file(tmp_path: Path, root: Path, helper: Helper) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_bytes(b"not ours")
    (root / "link").symlink_to(outside / "passwd")
    (root / "folder").symlink_to(outside)
    (root / "directory").mkdir()
    os.mkfifo(root / "pipe")
    (root / "strangers").write_bytes(b"")
    os.chown(root / "strangers", STRANGER, STRANGER)
    names = [
        "link",
        "folder/passwd",
        "directory",
        "pipe",
        "strangers",
        "../outside/passwd",
        "/etc/passwd",
        "",
        ".",
        "a\0b",
    ]
    for name in [*names, "directory/../../outside/passwd", "x" * 5000, "none", "none/none"]:
        for operation in ("retain", "release"):
            request = {"op": operation, "root": str(root), "name": name, "seconds": 14 * DAY}
            answer = asked(helper, json.dumps(request).encode() + b"\n")
            assert answer["ok"] is False, name
            assert answer["code"] in ("name", "denied", "missing", "request"), name
    request = {"op": "retain", "root": str(outside), "name": "passwd", "seconds": 14 * DAY}
    assert asked(helper, json.dumps(request).encode() + b"\n")["code"] == "root"
    assert not is_immutable(outside / "passwd")
    assert not is_immutable(root / "strangers")


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"nonsense\n",
        b"[" * 4000 + b"\n",
        b"7\n",
        b'{"op": "unlink"}\n',
        b'{"op": "retain", "root": 1, "name": 2, "seconds": 3}\n',
        b'{"op": "retain", "root": "/", "name": "etc", "seconds": "14"}\n',
        b'{"op": "retain", "root": "/", "name": "\xff"}\n',
        b"x" * 100_000,
    ],
)
def test_nonsense_is_answered_and_harms_nobody(helper: Helper, data: bytes) -> None:
    try:
        assert asked(helper, data)["ok"] is False
    except (ConnectionResetError, BrokenPipeError):
        assert len(data) > 4096  # it does not read to the end what is too long
    assert helper.client().status()["kept"] == 0


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "1e300", "315705600"])
def test_no_period_is_beyond_the_maximum(root: Path, helper: Helper, store: PosixStore, seconds: str) -> None:
    store.put("packs/00/a", b"data")
    request = f'{{"op": "retain", "root": "{root}", "name": "packs/00/a", "seconds": {seconds}}}\n'
    assert asked(helper, request.encode())["code"] == "limit"
    assert not is_immutable(root / "packs/00/a")


def test_silent_clients_do_not_keep_others_waiting_for_long(helper: Helper, store: PosixStore) -> None:
    store.put("packs/00/a", b"data")
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(16)]
    for connection in silent:
        connection.connect(str(helper.socket))
    begun = time.monotonic()
    store.retain("packs/00/a", in_days(14))
    assert time.monotonic() - begun < 15
    for connection in silent:
        connection.close()


def test_strangers_cannot_ask_and_the_kernel_says_who_they_are(root: Path, helper: Helper, store: PosixStore) -> None:
    store.put("packs/00/a", b"data")
    assert helper.socket.stat().st_mode & 0o777 == 0o660
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"op": "status"}\\n\'); print(s.recv(1000).decode())'
    )
    for directory in (helper.directory, *helper.directory.parents):
        if directory.stat().st_uid == 0 and str(directory).startswith(tempfile.gettempdir() + "/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    words = ["setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups", "/usr/bin/python3", "-c"]
    refused = subprocess.run([*words, script, helper.socket], capture_output=True, text=True, check=False)
    assert "PermissionError" in refused.stderr
    # With the group's permission alone the kernel still tells who asks.
    helper.socket.chmod(0o666)
    asked_anyway = subprocess.run([*words, script, helper.socket], capture_output=True, text=True, check=False)
    assert '"denied"' in asked_anyway.stdout, asked_anyway.stderr


def test_the_helper_needs_no_more_than_its_four_capabilities(tmp_path: Path) -> None:
    """As its service runs it: a user of its own, the repository another's."""
    base = Path(command.run(["mktemp", "-d", "/var/tmp/lanfree-tests-XXXXXX"], timeout=10).text.strip())
    try:
        base.chmod(0o711)
        root, state = base / "backup", base / "state"
        for path, user in ((root, 0), (state, STRANGER)):
            path.mkdir(mode=0o700)
            os.chown(path, user, user)
        store = PosixStore(root)
        store.put("packs/00/a", b"data")
        capabilities = "+linux_immutable,+fowner,+dac_read_search,+lease"
        script = (
            "import sys; from pathlib import Path; from appliance.immutable.keeper import *;"
            "from appliance.immutable.deadlines import *; from appliance.immutable.trusted_time import *;"
            "root, state = sys.argv[1:]; clock = KernelBootClock();"
            "k = Keeper(Rules((Path(root),), frozenset({0}), 0.001, 1e6), Deadlines(Path(state) / 'd'), clock);"
            "k.go_on(); print(k.retain(root, 'packs/00/a', 0.5))"
        )
        words = ["setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups"]
        words += ["--bounding-set", f"-all,{capabilities}", "--inh-caps", f"-all,{capabilities}"]
        words += ["--ambient-caps", f"-all,{capabilities}"]
        python = [str(Path("/usr/bin/python3")), "-c", script, str(root), str(state)]
        package = Path(__file__).parents[3]
        done = command.run([*words, *python], timeout=30, env={"PYTHONPATH": _reachable(package, base)})
        assert float(done.text) == pytest.approx(0.5, abs=0.1)
        assert is_immutable(root / "packs/00/a")
    finally:
        make_mutable(base)
        shutil.rmtree(base)


def _reachable(package: Path, base: Path) -> str:
    """A copy of the helper that another user may read, wherever the checkout lies."""
    copy = base / "code/appliance"
    shutil.copytree(package / "appliance/immutable", copy / "immutable", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "__init__.py").touch()
    for path in (base / "code").rglob("*"):
        path.chmod(0o755)
    (base / "code").chmod(0o755)
    return str(base / "code")


def test_a_file_system_without_the_attribute_is_told(tmp_path: Path) -> None:
    root = tmp_path / "proc-like"
    root.mkdir()
    command.run(["mount", "-t", "ramfs", "ramfs", root], timeout=20)
    try:
        with immutability_helper(tmp_path / "helper", root, minimum=DAY) as helper:
            store = PosixStore(root, retainer=helper.client())
            store.put("packs/00/a", b"data")
            with pytest.raises(ConfigurationError, match="no immutable attribute"):
                store.retain("packs/00/a", in_days(14))
            store.delete("packs/00/a")
    finally:
        command.run(["umount", root], timeout=20)
