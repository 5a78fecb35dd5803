"""Names and limits of units, from pages that a real target sent and from pages that it should not send."""

import pytest

from proxy.errors import FormatError
from proxy.transport.iscsi import vpd
from proxy.transport.iscsi.vpd import Identity

# INQUIRY page 0x83 of tgt 1.0.85, target 2, LUN 1: `sg_inq -H -p 0x83` would print it; with scsi_id=lanfree-lun-0001,
# and of LUN 2, whose scsi_id was left as it is.
TGT_NAMED = bytes.fromhex(
    "00830048020100246c616e667265652d6c756e2d3030303100000000000000000000000000000000000000000103000830000002000000010103"
    "001060000000000000000a0f0ee000000001"
)
TGT_DEFAULT = bytes.fromhex(
    "00830048020100244945542020202020303030323030303200000000000000000000000000000000000000000103000830000002000000020103"
    "001060000000000000000e00000000020002"
)


def page(*designators: tuple[int, int, bytes]) -> bytes:
    body = b"".join(bytes([code_set, kind, 0, len(value)]) + value for code_set, kind, value in designators)
    return bytes([0, 0x83]) + len(body).to_bytes(2, "big") + body


NAA6 = bytes.fromhex("600a0b8000111111000000000000beef")
NAA5 = bytes.fromhex("5000c50012345678")


def test_names_are_canonical_and_the_long_naa_comes_first() -> None:
    data = page((2, 1, b"ACME    disk 1 \0\0"), (1, 3, NAA5), (1, 2, bytes(range(8))), (1, 3, NAA6))
    identity = vpd.parse_identity(data)
    assert identity.names == (
        "naa.600a0b8000111111000000000000beef",
        "naa.5000c50012345678",
        "eui.0001020304050607",
        "t10.ACME____disk_1",
    )
    assert identity.name == identity.names[0]


def test_names_of_ports_and_targets_are_not_the_units() -> None:
    assert vpd.parse_identity(page((0x51, 0x13, NAA5), (0x51, 0x23, NAA5))) == Identity(())


def test_names_that_every_array_of_the_kind_would_give_are_only_local() -> None:
    named, default = vpd.parse_identity(TGT_NAMED), vpd.parse_identity(TGT_DEFAULT)
    assert named.names == ("t10.lanfree-lun-0001",)
    assert named.local == ("naa.60000000000000000a0f0ee000000001", "naa.3000000200000001")
    assert default.names == ()
    assert default.name == "naa.60000000000000000e00000000020002"
    assert default.is_called("t10.IET_____00020002")


def test_a_unit_is_found_by_any_name_that_the_world_knows_and_by_no_other() -> None:
    one = Identity(("naa.6a", "t10.x"), ("naa.3a",))
    assert one.shares_name(Identity(("t10.x",)))
    assert not one.shares_name(Identity(("t10.y",), ("naa.3a",)))
    assert not Identity((), ("naa.3a",)).shares_name(Identity((), ("naa.3a",)))


def test_a_unit_is_still_itself_by_local_names_only_where_there_are_no_others() -> None:
    local = Identity((), ("naa.3a",))
    assert local.is_still(Identity((), ("naa.3a",)))
    assert not local.is_still(Identity((), ("naa.3b",)))
    assert not Identity(("t10.x",), ("naa.3a",)).is_still(Identity(("t10.y",), ("naa.3a",)))
    assert not Identity(("t10.x",), ("naa.3a",)).is_still(local)
    assert Identity(()).is_still(Identity(()))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\x83\0", b"\0\x80\0\0", page((1, 3, NAA6))[:-1]],
    ids=["empty", "short header", "another page", "designator cut off"],
)
def test_a_page_that_cannot_be_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        vpd.parse_identity(data)


def test_unknown_designators_are_passed_over() -> None:
    assert vpd.parse_identity(page((1, 3, b"abc"), (2, 8, b"iqn.x"), (1, 0xA, bytes(18)), (2, 1, b"  \0"))) == Identity(
        ()
    )


def test_block_limits_are_zero_where_the_device_is_silent() -> None:
    assert vpd.parse_block_limits(b"\0\xb0\0\x0c" + bytes(4) + (64).to_bytes(4, "big") + bytes(4)) == vpd.BlockLimits(
        64
    )
    fields = (64, 0, 0, 1000, 4, 8, 0x80000003)
    body = bytes(4) + b"".join(f.to_bytes(4, "big") for f in fields) + (4096).to_bytes(8, "big")
    limits = vpd.parse_block_limits(b"\0\xb0" + len(body).to_bytes(2, "big") + body)
    assert limits == vpd.BlockLimits(64, 1000, 4, 8, 3, 4096)


def test_an_unmap_alignment_that_is_not_valid_is_none() -> None:
    body = bytes(32)[:28] + (5).to_bytes(4, "big") + bytes(8)
    assert vpd.parse_block_limits(b"\0\xb0" + len(body).to_bytes(2, "big") + body).unmap_alignment == 0


def test_provisioning_tells_the_two_ways_to_deallocate() -> None:
    assert vpd.parse_provisioning(b"\0\xb2\0\x04\0\x80\0\0") == vpd.Provisioning(unmap=True)
    assert vpd.parse_provisioning(b"\0\xb2\0\x04\0\x40\0\0") == vpd.Provisioning(write_same=True)
    assert vpd.parse_provisioning(b"\0\xb2\0\0") == vpd.Provisioning()
