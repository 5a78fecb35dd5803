"""Keys of encrypted volumes: which to try where, and that they are not shown."""

import pytest

from mounter import wire
from mounter.keys import Key, for_volume
from proxy.errors import FormatError

RECOVERY = "002816-008470-014124-019778-025432-031086-036740-042394"


def test_a_key_does_not_show_its_secret() -> None:
    assert "hunter2" not in repr(Key("/dev/sda3", b"hunter2"))
    assert "hunter2" not in str([Key("", b"hunter2")])


def test_keys_for_a_volume_are_tried_before_those_for_all() -> None:
    everywhere, here, other = Key("", b"a"), Key("/dev/sda3", b"b"), Key("/dev/sdb1", b"c")
    by_uuid = Key("ABCD-ef01", b"d")
    assert for_volume([everywhere, here, other, by_uuid], "/dev/sda3", "abcd-EF01") == [here, by_uuid, everywhere]
    assert for_volume([other], "/dev/sda3", "") == []


@pytest.mark.parametrize(
    ("secret", "forms"),
    [
        (b"word", [b"word"]),
        (b"word\n", [b"word\n", b"word"]),
        (b"\n", [b"\n"]),
        (RECOVERY.encode(), [RECOVERY.encode()]),
        (RECOVERY.encode() + b"\r\n", [RECOVERY.encode(), RECOVERY.encode() + b"\r\n"]),
        (RECOVERY.replace("-", "").encode(), [RECOVERY.encode(), RECOVERY.replace("-", "").encode()]),
    ],
)
def test_a_secret_is_tried_as_given_and_as_people_write_it(secret: bytes, forms: list[bytes]) -> None:
    assert Key("", secret).forms() == forms


@pytest.mark.parametrize("secret", [b"", bytes(2 << 20)], ids=["empty", "too long"])
def test_what_cannot_be_a_key_is_refused(secret: bytes) -> None:
    with pytest.raises(FormatError):
        Key("", secret)


def test_a_key_goes_over_the_wire_byte_by_byte() -> None:
    key = Key("/dev/sda3", bytes(range(256)))
    assert wire.key_from_wire(wire.key_to_wire(key)) == key


def test_nonsense_on_the_wire_is_refused_without_showing_it() -> None:
    with pytest.raises(FormatError) as told:
        wire.key_from_wire(["/dev/sda3", "hunter2", "more"])
    assert "hunter2" not in str(told.value)
