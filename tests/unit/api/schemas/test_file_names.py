"""Names of guests' files on the wire, and keys that never show."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from api.schemas.guest_names import guest_path, id_of, moment_of, text_of
from api.schemas.mounts import MountRequest
from proxy.errors import ConfigurationError, GuestFileNotFound


def test_ids_lead_back_to_any_bytes() -> None:
    every = bytes(range(1, 256))
    assert guest_path(None, id_of(b"/" + every.replace(b"/", b""))) == b"/" + every.replace(b"/", b"")
    with pytest.raises(GuestFileNotFound):
        guest_path(None, id_of(b"/a/../b"))
    with pytest.raises(ConfigurationError):
        guest_path(None, "A")


def test_text_of_names_shows_what_does_not_print() -> None:
    assert text_of("/häuser/日本".encode()) == "/häuser/日本"
    assert text_of(b"/a\xff\x1b[2J\xe2\x80\xae") == "/a%FF%1B[2J%E2%80%AE"


def test_times_that_no_calendar_has_are_none() -> None:
    assert moment_of(1_500_000_000_000_001_500) == datetime(2017, 7, 14, 2, 40, 0, 1, tzinfo=UTC)
    assert moment_of(-(2**80)) is None
    assert moment_of(2**80) is None


@pytest.mark.parametrize("path", ["/..", "/a/..", "/a/../b", "..", ".", "/./a", "C:\\..\\x"])
def test_no_path_goes_up(path: str) -> None:
    with pytest.raises(GuestFileNotFound):
        guest_path(path)


def test_backslashes_are_separators_behind_a_drive_and_letters_elsewhere() -> None:
    assert guest_path("C:\\Users\\x") == b"C:/Users/x"
    assert guest_path("C:\\") == b"C:"
    assert guest_path("/odd\\name") == b"/odd\\name"
    assert guest_path("/etc//") == b"/etc"
    assert guest_path(None) == guest_path("") == b"/"


def test_half_a_pair_is_no_name() -> None:
    with pytest.raises(GuestFileNotFound):
        guest_path("/\ud800")


def test_keys_show_neither_in_what_is_made_of_them_nor_in_what_is_wrong_with_them() -> None:
    request = MountRequest.model_validate({"point": "p", "keys": [{"secret": "hunter2"}]})

    assert request.keys[0].content() == b"hunter2"
    assert "hunter2" not in repr(request) + str(request.model_dump())
    for wrong in (
        {"secret": "hunter2", "secret_base64": "aHVudGVyMg=="},
        {"secret_base64": "hunter2!"},
        {"volume": "hunter2" * 100, "secret": "hunter2"},
        {"secret": "hunter2", "extra": "hunter2"},
    ):
        with pytest.raises(ValidationError) as caught:
            MountRequest.model_validate({"point": "p", "keys": [wrong]})
        assert "hunter2" not in str(caught.value)
