import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.lab.state import LunRecord, State, StateFile, with_lun, without_lun
from proxy.errors import ConfigurationError, FormatError

STATE = State("1a2b3c4d", Path("/run/lanfree-lab/1a2b3c4d"), 13300, ("h1", "h2"), (LunRecord(1, 4096),))


def test_a_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    StateFile(tmp_path).create(STATE)
    assert StateFile(tmp_path).read() == STATE


def test_a_directory_holds_one_lab_only(tmp_path: Path) -> None:
    StateFile(tmp_path).create(STATE)
    with pytest.raises(ConfigurationError, match="holds a lab already"):
        StateFile(tmp_path).create(STATE)


def test_a_directory_without_a_lab_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no lab"):
        StateFile(tmp_path).read()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 99}', '{"version": 1, "lab": "x"}'])
def test_a_file_that_is_not_ours_is_a_format_error(tmp_path: Path, text: str) -> None:
    place = StateFile(tmp_path)
    place.path.write_text(text)
    with pytest.raises(FormatError):
        place.read()


def test_luns_come_and_go(tmp_path: Path) -> None:
    place = StateFile(tmp_path)
    place.create(STATE)
    place.update(lambda state: with_lun(state, LunRecord(7, 1 << 20)))
    assert place.read().luns == (LunRecord(1, 4096), LunRecord(7, 1 << 20))
    place.update(lambda state: without_lun(state, 1))
    place.update(lambda state: without_lun(state, 99))
    assert place.read().luns == (LunRecord(7, 1 << 20),)


def test_no_change_is_lost_when_many_change_at_once(tmp_path: Path) -> None:
    StateFile(tmp_path).create(STATE)

    def add(number: int) -> None:
        StateFile(tmp_path).update(lambda state: with_lun(state, LunRecord(number, 512)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(2, 42)))
    assert {lun.number for lun in StateFile(tmp_path).read().luns} == set(range(1, 42))


def test_the_file_is_json_that_people_can_read(tmp_path: Path) -> None:
    place = StateFile(tmp_path)
    place.create(STATE)
    assert json.loads(place.path.read_text())["run"] == "/run/lanfree-lab/1a2b3c4d"
