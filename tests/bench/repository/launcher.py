"""Runs one program and writes what it took as JSON: seconds of wall and CPU, peak memory in KiB, exit code.

    python -I -S launcher.py RESULT PROGRAM [ARGUMENT…]

A process of its own, and a small one that imports next to nothing: the kernel counts the memory of whoever forks to the
peak of what it starts. CPU and peak are of the program and of all that it waited for; servers that it left alone are not in.
"""

import json
import os
import sys
import time


def main() -> int:
    result, argv = sys.argv[1], sys.argv[2:]
    begin = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            os.execvp(argv[0], argv)
        finally:
            os._exit(127)
    _, status, used = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    code = os.waitstatus_to_exitcode(status)
    figures = {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss, "code": code}
    with open(result, "w") as file:  # noqa: PTH123  # pathlib would be most of this process
        json.dump(figures, file)
    return 0 if code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
