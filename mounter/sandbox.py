"""What a process gives up before it parses hostile disks. There is no way back, and no child to hand it to.

=====================  ==========================================  =================================
what                   how                                         without root / on other machines
=====================  ==========================================  =================================
files, sockets, exec,  system call filter: an allow list, the rest  x86_64 only; elsewhere the rest of
processes, threads     fails with EPERM                            this table holds
network, mounts, IPC   name spaces of its own, with nothing in     needs root
the file tree          an empty directory, deleted, is its root    needs root
identity               a user id that nobody has, no groups, no    needs root
                       capabilities
privileges             no_new_privs                                always
memory, CPU time,      resource limits                             always
files, core dumps
ptrace, /proc/PID      not dumpable                                always
=====================  ==========================================  =================================

What is open stays open: the sockets of the disks, the connection to the session, the log. ``enter`` tells what is missing;
``confined`` is whether the process is kept from files, sockets and processes by one way or the other.
"""

import codecs
import ctypes
import errno
import os
import platform
import resource
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proxy.units import GiB, MiB

# Linux' numbers: prctl(2), seccomp(2), unshare(2).
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 1, 1
_SYS_SECCOMP = 317
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000

# systemd's table of user ids ends what is given out at 1879048191; from here to 2**31 nobody has any (systemd.io, UIDS-GIDS).
_FIRST_USER = 1_900_000_000

# seccomp's verdicts, and what identifies x86_64 (linux/audit.h). x32 calls have bit 30 set.
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_ARCHITECTURE = 0xC000003E
_X32 = 0x40000000

# BPF: load a word; jump if equal, if not less, if a bit is set; return (linux/filter.h).
_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NR_AT, _ARCH_AT, _ARG0_AT, _ARG1_AT, _ARG2_AT = 0, 4, 16, 24, 32

# System calls on x86_64 that move bytes through what is open, manage memory, tell the time, or end the process.
_CALLS = {
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "poll": 7,
    "lseek": 8,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "pread64": 17,
    "readv": 19,
    "writev": 20,
    "select": 23,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "nanosleep": 35,
    "getpid": 39,
    "sendto": 44,
    "recvfrom": 45,
    "sendmsg": 46,
    "recvmsg": 47,
    "shutdown": 48,
    "getsockname": 51,
    "getpeername": 52,
    "setsockopt": 54,
    "getsockopt": 55,
    "exit": 60,
    "getuid": 102,
    "getgid": 104,
    "geteuid": 107,
    "getegid": 108,
    "getppid": 110,
    "gettid": 186,
    "futex": 202,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "ppoll": 271,
    "set_robust_list": 273,
    "getrandom": 318,
    "rseq": 334,
}
# Allowed only where an argument is harmless: memory that is no file and not executable; a signal to our own group; flags of
# what is open (F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC), but not to whom the kernel signals for it.
_MMAP, _MPROTECT, _KILL_CALL, _FCNTL = 9, 10, 62, 72
_FLAGS = (0, 1, 2, 3, 4, 1030)
_PROT_EXEC = 4

# Python loads a codec's module at its first use, when no file can be opened any more.
_CODECS = ("ascii", "latin-1", "utf-8", "utf-16-le", "unicode_escape")


@dataclass(frozen=True, slots=True)
class Limits:
    """``memory``: address space in bytes, Python and its libraries (0.4 GiB) included. ``cpu_seconds``: of the whole session:
    an index of some million files takes a minute; who browses for an hour uses seconds. ``files``: open ones."""

    memory: int = 2 * GiB
    cpu_seconds: int = 900
    files: int = 64
    log: int = 1 * MiB


@dataclass(frozen=True, slots=True)
class Entered:
    """``missing``: what could not be given up, and why."""

    confined: bool
    missing: tuple[str, ...] = ()


def enter(limits: Limits) -> Entered:
    """Confine this process, all its threads included, for the rest of its life. Modules must be imported before."""
    for name in _CODECS:
        codecs.lookup(name)
    missing: list[str] = []
    root = os.geteuid() == 0
    apart = _tried("name spaces", _leave_everything, missing, root)
    other = _tried("user id", _become_nobody, missing, root)
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    _limit(limits)
    machine = platform.machine()
    filtered = False
    if machine != "x86_64":
        missing.append(f"system call filter: none for {machine}")
    else:
        try:
            _filter(libc)
            filtered = True
        except OSError as error:
            missing.append(f"system call filter: {error.strerror}")
    return Entered(filtered or (apart and other), tuple(missing))


def available() -> Entered:
    """What ``enter`` would find here, without doing it: for those who look after the proxy."""
    missing = [] if os.geteuid() == 0 else ["name spaces: not root", "user id: not root"]
    if platform.machine() != "x86_64":
        missing.append(f"system call filter: none for {platform.machine()}")
    elif "Seccomp:" not in Path("/proc/self/status").read_text(encoding="ascii", errors="replace"):
        missing.append("system call filter: not in this kernel")
    filtered = not any(m.startswith("system call filter") for m in missing)
    return Entered(filtered or not any(m.endswith("not root") for m in missing), tuple(missing))


def _tried(what: str, step: Callable[[], None], missing: list[str], root: bool) -> bool:
    if not root:
        missing.append(f"{what}: not root")
        return False
    try:
        step()
    except OSError as error:
        missing.append(f"{what}: {error.strerror}")
        return False
    return True


def _leave_everything() -> None:
    """Own name spaces, and an empty directory without a name as the root."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWNET), "unshare")
    nowhere = tempfile.mkdtemp(prefix="lanfree-empty-")
    at = os.open(nowhere, os.O_RDONLY | os.O_DIRECTORY)
    Path(nowhere).rmdir()
    os.fchdir(at)
    os.close(at)
    os.chroot(".")


def _become_nobody() -> None:
    user = _FIRST_USER + os.getpid()
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _limit(limits: Limits) -> None:
    for what, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_FSIZE, limits.log),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        lower = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (lower, lower))


def _filter(libc: ctypes.CDLL) -> None:
    """For all threads at once. Raises ``OSError``."""
    program = _program()
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a length, padding, a pointer
    head = struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    told = ctypes.create_string_buffer(head, len(head))
    done = libc.syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, ctypes.byref(told))
    if done > 0:
        raise OSError(errno.EBUSY, f"thread {done} does not take it")
    _check(done, "seccomp")


def _program() -> bytes:
    """Classic BPF over struct seccomp_data. Jumps count from the next instruction, at most 255: so each call has its own
    verdict behind it."""
    deny = struct.pack("<HBBI", _RET, 0, 0, _ERRNO | errno.EPERM)
    allow = struct.pack("<HBBI", _RET, 0, 0, _ALLOW)
    load = struct.pack("<HBBI", _LD, 0, 0, _NR_AT)
    parts = [
        struct.pack("<HBBI", _LD, 0, 0, _ARCH_AT),
        struct.pack("<HBBI", _JEQ, 1, 0, _ARCHITECTURE),
        struct.pack("<HBBI", _RET, 0, 0, _KILL),
        load,
        struct.pack("<HBBI", _JGE, 0, 1, _X32),
        deny,
    ]
    for number in sorted(_CALLS.values()):
        parts += [struct.pack("<HBBI", _JEQ, 0, 1, number), allow]
    for number in (_MMAP, _MPROTECT):  # protection, the third argument: executable memory is refused
        parts += [
            struct.pack("<HBBI", _JEQ, 0, 4, number),
            struct.pack("<HBBI", _LD, 0, 0, _ARG2_AT),
            struct.pack("<HBBI", _JSET, 0, 1, _PROT_EXEC),
            deny,
            allow,
        ]
    parts += [  # fcntl(…, command, …)
        struct.pack("<HBBI", _JEQ, 0, 2 * len(_FLAGS) + 2, _FCNTL),
        struct.pack("<HBBI", _LD, 0, 0, _ARG1_AT),
        *(part for command in _FLAGS for part in (struct.pack("<HBBI", _JEQ, 0, 1, command), allow)),
        deny,
    ]
    parts += [  # kill(0, …): our own process group, which the worker ends when its session is gone
        struct.pack("<HBBI", _JEQ, 0, 4, _KILL_CALL),
        struct.pack("<HBBI", _LD, 0, 0, _ARG0_AT),
        struct.pack("<HBBI", _JEQ, 0, 1, 0),
        allow,
        deny,
        deny,
    ]
    return b"".join(parts)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
