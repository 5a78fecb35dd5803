import struct

import pytest

from mounter.restore.access_rules import text_of

NOBODY = 2**32 - 1


def rules(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_every_kind_of_entry_has_its_words() -> None:
    found = text_of(rules((1, 7, NOBODY), (2, 4, 1000), (4, 5, NOBODY), (8, 2, 33), (16, 7, NOBODY), (32, 0, NOBODY)))
    assert found == b"user::rwx,user:1000:r--,group::r-x,group:33:-w-,mask::rwx,other::---"


@pytest.mark.parametrize(
    "value",
    [b"", b"\2", rules(), rules((1, 7, 0), version=3), rules((3, 7, 0)), rules((1, 8, 0)), rules((1, 7, 0))[:-1]],
    ids=["empty", "short", "no-entries", "version", "tag", "permissions", "torn"],
)
def test_what_is_no_such_list_is_not_made_one(value: bytes) -> None:
    assert text_of(value) is None
