"""The config object: readable, self-checking, and refused when it comes from the future."""

import json
from typing import Any

import pytest
from blake3 import blake3

from proxy.errors import FormatError
from proxy.repository import settings
from proxy.repository.settings import Settings


def made() -> Settings:
    return settings.fresh("2026-01-01T00:00:00+00:00", 256 * 1024, 32 * 1024 * 1024, 1)


def changed(**fields: Any) -> bytes:
    """A config whose digest fits its changed fields."""
    document = {**json.loads(settings.encode(made())), **fields}
    document.pop("digest")
    text = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    document["digest"] = blake3(text).hexdigest()
    return json.dumps(document).encode()


def test_settings_survive_the_way_to_storage_and_back() -> None:
    known = made()
    assert settings.decode(settings.encode(known)) == known


def test_two_repositories_have_different_ids_and_keys() -> None:
    one, other = made(), made()
    assert one.id != other.id
    assert one.key != other.key


def test_the_key_is_not_shown_by_accident() -> None:
    known = made()
    assert known.key.hex() not in repr(known)
    assert repr(known.key) not in repr(known)


def test_a_repository_from_the_future_is_refused_with_a_clear_message() -> None:
    with pytest.raises(FormatError, match=r"format version 2; this software knows up to 1: update it"):
        settings.decode(changed(version=2))


def test_every_flipped_byte_is_found() -> None:
    data = settings.encode(made())
    assert settings.decode(data)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        try:
            survived = settings.decode(bytes(damaged))
        except FormatError:
            continue
        assert bytes(damaged[place : place + 1]).isspace(), place  # white space that means the same JSON
        assert survived == settings.decode(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "1"},
        {"version": 0},
        {"format": "something-else"},
        {"sealing": "aes"},
        {"codec": "lz4"},
        {"chunk_size": 3 * 1024},
        {"chunk_size": 1 << 30},
        {"chunk_size": None},
        {"pack_size": 1},
        {"level": 99},
        {"key": "00"},
        {"id": "zz"},
    ],
    ids=str,
)
def test_what_this_software_cannot_handle_is_refused(fields: dict[str, Any]) -> None:
    assert settings.decode(changed())
    with pytest.raises(FormatError):
        settings.decode(changed(**fields))


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b"null"])
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        settings.decode(data)
