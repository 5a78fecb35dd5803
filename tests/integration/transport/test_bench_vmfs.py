"""The benchmark of VMFS over the SAN still runs the way ``make bench`` calls it. Its figures are for people."""

import sys
from pathlib import Path

import pytest

from proxy import command

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "qemu-img", "root")]

BENCH = Path(__file__).parents[2] / "bench" / "bench_vmfs.py"


def test_the_benchmark_runs_by_its_path_and_prints_its_three_tables() -> None:
    options = ["--size-mib", "16", "--rounds", "1", "--map-gib", "16"]
    printed = command.run([sys.executable, BENCH, *options], timeout=120).text.splitlines()
    assert [line[:2] for line in printed if line[1:3] == ". "] == ["1.", "2.", "3."]
    assert "of the best of the others" in "".join(printed)
    assert "every second block" in "".join(printed)
    rows = [line.split() for line in printed[-3:]]
    assert [row[0] for row in rows] == ["10", "100", "1000"]
    for row in rows:  # what was read of the LUN is what had changed, and no more
        assert float(row[5]) <= 1.1
