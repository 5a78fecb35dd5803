"""The benchmark of the SAN read path still runs the way ``make bench`` calls it. Its figures are for people."""

import sys
from pathlib import Path

import pytest

from proxy import command

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "qemu-img", "qemu-nbd", "nbdcopy", "root")]

BENCH = Path(__file__).parents[2] / "bench" / "bench_san.py"


def test_the_benchmark_runs_by_its_path_and_prints_a_row_for_each_reader() -> None:
    printed = command.run([sys.executable, BENCH, "--size-mib", "16", "--rounds", "1"], timeout=120).text.splitlines()
    rows = [line[:18].strip() for line in printed[2:-1]]
    assert rows == ["ours 4 x 1 MiB", "ours 2 x 4 MiB", "qemu-img 256K", "qemu-img 512K", "nbdcopy"]
    assert "of the best peer" in printed[-1]
