"""Runs: what goes in comes out, merged or not, and no flipped bit of a record is taken for a place."""

import random
from pathlib import Path

import pytest

from proxy.errors import FormatError
from proxy.repository import runs_arrays
from proxy.repository.packs import Place
from proxy.repository.packset import PackSet
from proxy.repository.runs import Run, build
from proxy.repository.runs_arrays import merge, records_of

NOBODY = PackSet.of(())


def places(chooser: random.Random, count: int, packs: int, prefix: bytes = b"") -> list[tuple[bytes, Place]]:
    names = [chooser.randbytes(16) for _ in range(packs)]
    return [
        (
            prefix + chooser.randbytes(20 - len(prefix)),
            Place(chooser.choice(names), chooser.randrange(1 << 32), chooser.randrange(1 << 32)),
        )
        for _ in range(count)
    ]


def content(run: Run) -> list[tuple[bytes, Place]]:
    ids = [run.id(number) for number in range(run.count)]
    return sorted(((chunk, place) for chunk in dict.fromkeys(ids) for place in run.find(chunk)), key=repr)


@pytest.mark.parametrize("block", [1, 3, 1000])
@pytest.mark.parametrize("prefix", [b"", b"\x00" * 8, b"\xff" * 17])
def test_a_merged_run_holds_what_all_held_once_and_nothing_of_packs_that_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, prefix: bytes
) -> None:
    monkeypatch.setattr(runs_arrays, "BLOCK", block)
    chooser = random.Random(5)
    shared = places(chooser, 10, 2, prefix)
    parts = [[*shared, *places(chooser, count, 4, prefix)] for count in (40, 7, 1)]
    # Copies of a chunk in other packs, and the same ones in two runs.
    parts[1] += [(chunk, Place(b"q" * 16, 1, 2)) for chunk, _ in parts[0][:5]]
    parts[2] += parts[1][-3:]
    gone = {parts[0][20][1].pack, parts[1][12][1].pack}
    group = [Run(build(tmp_path, part)) for part in parts]
    assert [content(run) for run in group] == [sorted(part, key=repr) for part in parts]
    merged = Run(merge(tmp_path, group, PackSet.of(gone)))
    expected = {item for part in parts for item in part if item[1].pack not in gone}
    assert content(merged) == sorted(expected, key=repr)
    ids = [merged.id(number) for number in range(merged.count)]
    assert ids == sorted(ids)
    assert list(merged.find(chooser.randbytes(20))) == []


def test_a_run_of_nothing_is_a_run(tmp_path: Path) -> None:
    full = Run(build(tmp_path, places(random.Random(1), 5, 1)))
    empty = Run(merge(tmp_path, [full], PackSet.parse(full.pack_table())))
    assert empty.count == 0
    assert len(records_of(empty)) == 0
    assert content(Run(merge(tmp_path, [empty, full], NOBODY))) == content(full)


@pytest.mark.slow
def test_no_flipped_bit_of_a_record_is_taken_for_a_place(tmp_path: Path) -> None:
    made = places(random.Random(2), 1, 1)
    run = Run(build(tmp_path, made))
    good = run.path.read_bytes()
    for bit in range((len(good) - 36) * 8, len(good) * 8):
        run.path.write_bytes(good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :])
        flipped = Run(run.path)
        assert list(flipped.find(flipped.id(0))) == []
        assert Run(merge(tmp_path, [flipped], NOBODY)).count == 0


def test_a_run_may_be_closed_while_arrays_over_it_are_used(tmp_path: Path) -> None:
    run = Run(build(tmp_path, places(random.Random(3), 5, 1)))
    records = records_of(run)
    run.close()
    assert len(records["offset"].tolist()) == 5


@pytest.mark.parametrize("damage", [b"", b"LANFRUN2", b"LANFRUN1" + bytes(8), b"LANFRUN2" + b"\x01" * 8])
def test_what_is_no_run_is_told(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "x.run"
    path.write_bytes(damage)
    with pytest.raises(FormatError):
        Run(path)


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        build(tmp_path / "no such", places(random.Random(4), 5, 1))
    assert list(tmp_path.iterdir()) == []
