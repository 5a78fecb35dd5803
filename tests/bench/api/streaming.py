"""Memory of the API's process while a folder of many GiB is downloaded from it.

    python -m tests.bench.api.streaming [--gib 20] [--format tar|zip|tar.zst] [--clients 1] [--idle SECONDS]

A process of its own serves the API by uvicorn; the restore point's files are made up as they are read, so that neither disk nor
network is what is measured. ``--idle``: the clients take nothing any more for so long after their first MiB. Prints a line of
JSON: bytes, seconds, MiB/s, and the process's resident memory before and at most.
"""

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PIECE = 1 << 20

ATTEMPTS = 600


def resident(pid: int) -> int:
    """Bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process has ended")


def take(told: dict[str, Any], number: int, kind: str, idle: float) -> int:
    """Download it all, or stop after a MiB for ``idle`` seconds; bytes that came."""
    connection = http.client.HTTPConnection("127.0.0.1", told["port"], timeout=max(600.0, idle + 60))
    address = f"/api/v1/restore-points/{told['point']}/files/download?path=/folder&format={kind}"
    connection.request("GET", address, headers={"Authorization": f"Bearer {told['tokens'][number % 4]}"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    count = len(answer.read(PIECE))
    if idle:
        time.sleep(idle)
        connection.close()
        return count
    buffer = bytearray(PIECE)
    while size := answer.readinto(buffer):
        count += size
    connection.close()
    return count


def measure(gib: int, kind: str, clients: int, idle: float) -> dict[str, Any]:
    """One run."""
    with tempfile.TemporaryDirectory() as base:
        argv = [sys.executable, "-W", "ignore", "-m", "tests.bench.api.streaming_process", base, str(gib)]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            take(told, 0, "zip", 0.01)  # everything that is loaded at first use is there
            time.sleep(1)
            before = most = resident(process.pid)
            counts: list[int] = []
            threads = [
                threading.Thread(target=lambda n=n: counts.append(take(told, n, kind, idle))) for n in range(clients)
            ]
            began = time.monotonic()
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                most = max(most, resident(process.pid))
                time.sleep(0.2)
            seconds = time.monotonic() - began
            running = 1
            for _ in range(ATTEMPTS):
                process.stdin.write("?\n")
                process.stdin.flush()
                running = json.loads(process.stdout.readline())["running"]
                if not running:
                    break
                time.sleep(0.2)
        finally:
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    mib = sum(counts) / (1 << 20)
    return {
        "format": kind,
        "clients": clients,
        "idle": idle,
        "bytes": sum(counts),
        "seconds": round(seconds, 1),
        "mib_per_second": round(mib / seconds, 1),
        "resident_before_mib": round(before / (1 << 20), 1),
        "resident_most_mib": round(most / (1 << 20), 1),
        "left_running": running,
    }


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=int, default=20)
    parser.add_argument("--format", default="tar", choices=["tar", "zip", "tar.zst"])
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--idle", type=float, default=0.0)
    given = parser.parse_args()
    print(json.dumps(measure(given.gib, given.format, given.clients, given.idle)))


if __name__ == "__main__":
    main()
