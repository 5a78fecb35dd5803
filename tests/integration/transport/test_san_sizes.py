"""Sizes of a target's units, asked of a real tgtd."""

from pathlib import Path

import pytest

from proxy.transport.iscsi import Limits, LoginFailed
from proxy.transport.san_sizes import unit_sizes
from proxy.units import MiB
from tests.integration.transport.tgt_array import BACKUP, Array

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root")]


def test_every_unit_tells_its_size_and_what_is_none_is_left_out(served: Array, image: Path, tmp_path: Path) -> None:
    served.lun(2, 7, image, "lanfree-lun-0001")
    target = served.san_target(BACKUP, tmp_path / "secret")
    # A busy machine's tgtd takes longer than people wait for a list.
    assert unit_sizes(target, [1, 7, 9], seconds=120, limits=Limits(timeout=60, login_timeout=60)) == {
        1: 32 * MiB,
        7: 32 * MiB,
    }


def test_nobody_waits_longer_than_was_said(served: Array, tmp_path: Path) -> None:
    assert unit_sizes(served.san_target(BACKUP, tmp_path / "secret"), [1], seconds=0) == {}


def test_a_target_that_is_away_is_an_error_of_ours(served: Array, tmp_path: Path) -> None:
    target = served.san_target(BACKUP, tmp_path / "secret")
    served.kill()
    with pytest.raises(LoginFailed):
        unit_sizes(target, [1], seconds=10, limits=Limits(timeout=1, login_timeout=1))
