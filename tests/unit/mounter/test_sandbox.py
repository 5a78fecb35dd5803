"""What a confined process can no longer do: each is tried, in a process of its own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mounter import sandbox

HERE = Path(__file__).parents[3]

# Each prints "refused" when what it tries is refused; what ends the process is told by its exit code.
TRIES = {
    "open a file": "open('/etc/passwd')",
    "create a file": "open('/tmp/lanfree-escaped', 'w')",
    "list a directory": "os.listdir('/')",
    "open through what is open": "os.open('passwd', os.O_RDONLY, dir_fd=etc)",
    "make a socket": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "make a local socket": "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "make a pair of sockets": "socket.socketpair()",
    "fork": "os.fork()",
    "start a program": "os.execv('/bin/true', ['true'])",
    "start a thread": "threading.Thread(target=print).start()",
    "signal another process": "os.kill(os.getppid(), 0)",
    "signal another thread": "_(libc.syscall(234, os.getppid(), os.getppid(), 0))",
    "have the kernel signal another process": "_(libc.fcntl(etc, 8, os.getppid()))",
    "trace a process": "_(libc.ptrace(16, os.getppid(), 0, 0))",
    "become root again": "os.setuid(0)",
    "unshare": "_(libc.unshare(0x10000000))",
    "mount": "_(libc.mount(b'none', b'/', b'tmpfs', 0, None))",
    "get a file descriptor for nothing": "_(libc.memfd_create(b'x', 0))",
    "set up an io_uring": "_(libc.syscall(425, 8, ctypes.byref(room)))",
    "make memory executable": "_(libc.mprotect(page, 4096, 5))",
    "map executable memory": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
}

CODE = """
import ctypes, mmap, os, socket, sys, threading
from mounter import sandbox
libc = ctypes.CDLL(None, use_errno=True)
room = ctypes.create_string_buffer(256)
memory = mmap.mmap(-1, 8192)
page = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
etc = os.open('/etc', os.O_RDONLY)
def _(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), 'refused')
entered = sandbox.enter(sandbox.Limits({limits}))
assert entered.confined, entered
try:
    {attempt}
except (OSError, RuntimeError, MemoryError) as error:
    print('refused', type(error).__name__)
else:
    print('done')
"""

pytestmark = pytest.mark.skipif(
    not sandbox.available().confined, reason="; ".join(("no sandbox here", *sandbox.available().missing))
)


def run(attempt: str, limits: str = "") -> subprocess.CompletedProcess[str]:
    code = CODE.format(attempt=attempt, limits=limits)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def refused() -> dict[str, str]:
    """What became of each attempt, all of them made by one confined process."""
    attempt = (
        "for name, what in TRIES.items():\n"
        "        try: exec(what); print(name, '=', 'done')\n"
        "        except (OSError, RuntimeError, MemoryError) as error: print(name, '=', type(error).__name__)\n"
        "    raise OSError"
    )
    code = CODE.format(attempt=attempt, limits="").replace("try:\n", f"TRIES = {TRIES!r}\ntry:\n", 1)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return dict(line.split(" = ") for line in result.stdout.splitlines() if " = " in line)


@pytest.mark.parametrize("attempt", TRIES)
def test_a_confined_process_cannot(attempt: str, refused: dict[str, str]) -> None:
    assert refused[attempt] in ("PermissionError", "OSError", "RuntimeError")


def test_the_same_attempts_succeed_without_a_sandbox_where_they_may() -> None:
    code = CODE.format(attempt="open('/etc/passwd')", limits="").replace(
        "sandbox.enter(", "(lambda _: sandbox.Entered(True))("
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "done\n"


def test_it_cannot_take_more_memory_than_it_was_given() -> None:
    result = run("bytearray(4 << 30)")
    assert result.stdout == "refused MemoryError\n", result


@pytest.mark.slow
def test_it_is_ended_when_its_time_is_used_up() -> None:
    result = run("\n    while True: pass", "cpu_seconds=1")
    assert result.returncode < 0
    assert result.stdout == ""


def test_what_was_open_stays_open_and_memory_and_time_can_be_had() -> None:
    attempt = "os.write(1, b'x'); bytearray(50 << 20); import time; time.sleep(0.01); raise OSError"
    assert run(attempt).stdout == "xrefused OSError\n"


def test_it_may_end_its_own_process_group_only() -> None:
    result = subprocess.run(
        [sys.executable, "-c", CODE.format(attempt="os.kill(0, 9)", limits="")],
        cwd=HERE,
        capture_output=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert (result.returncode, result.stdout) == (-9, b"")


def test_threads_that_run_already_are_confined_as_well() -> None:
    attempt = "go.set(); thread.join(); raise OSError"
    code = CODE.replace(
        "entered = ",
        "go = threading.Event()\n"
        "def try_it():\n"
        "    go.wait()\n"
        "    try: open('/etc/passwd')\n"
        "    except OSError as error: print('thread refused')\n"
        "thread = threading.Thread(target=try_it); thread.start()\n"
        "entered = ",
    )
    result = subprocess.run(
        [sys.executable, "-c", code.format(attempt=attempt, limits="")],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout == "thread refused\nrefused OSError\n", result


def test_the_kernel_says_the_same_of_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE.format(attempt="os.write(1, b'.'); os.read(0, 1); raise OSError", limits="")],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines() if os.geteuid() == 0 else []
        process.communicate(b"x")
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (status["NoNewPrivs"], status["CapEff"].strip("0")) == ("1", "")
    if platform.machine() == "x86_64":
        assert status["Seccomp"] == "2"
    if os.geteuid() == 0:
        assert all(int(user) >= 1_900_000_000 for user in status["Uid"].split())
        assert [line.split()[4:6] for line in limits if line.startswith("Max core file size")] == [["0", "0"]]
