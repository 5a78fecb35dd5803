"""Which target serves a disk: the rules, over made-up fabrics. How units are asked is tested with a real array."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.errors import ConfigurationError, TransportRefused
from proxy.model import DeviceAddress, Format, FrozenDisk, Layer, LunAddress, NbdAddress
from proxy.transport.iscsi import Identity, LoginFailed, LoginReason
from proxy.transport.san import Access, SanFabric, SanTarget, SanTransport

HOSTS = "iqn.2026-01.org.example:hosts"
NAA1, NAA2 = "naa.600a0b80000000000000000000000001", "naa.600a0b80000000000000000000000002"


def target(name: str, access: Access = Access.BACKUP, presents: tuple[str, ...] = (HOSTS,)) -> SanTarget:
    return SanTarget(
        f"iqn.2026-01.org.example:{name}", ("192.0.2.1:3260",), "iqn.x:proxy", None, None, presents, access
    )


class Site:
    """Targets and what they show; counts how often each is asked."""

    def __init__(self, shown: Mapping[SanTarget, Mapping[int, Identity] | LoginFailed]) -> None:
        self.shown = dict(shown)
        self.asked: list[str] = []
        self.fabric = SanFabric(tuple(shown), scan=self.scan)

    def scan(self, target: SanTarget) -> Mapping[int, Identity]:
        self.asked.append(target.iqn.rpartition(":")[2])
        answer = self.shown[target]
        if isinstance(answer, LoginFailed):
            raise answer
        return answer


BACKUP, RESTORE, OTHER = target("backup"), target("restore", Access.RESTORE), target("other", presents=())
ONE, TWO = Identity((NAA1,)), Identity((NAA2,))
WEAK = Identity((), ("naa.60000000000000000e00000000010001",))


def refused(site: Site, address: LunAddress | DeviceAddress, access: Access = Access.BACKUP) -> TransportRefused:
    with pytest.raises(TransportRefused) as error:
        site.fabric.resolve(address, access)
    return error.value


def test_a_backup_target_goes_before_a_restore_target_whatever_the_order() -> None:
    site = Site({RESTORE: {1: ONE}, BACKUP: {1: ONE}})
    assert site.fabric.resolve(LunAddress(HOSTS, 1)).target is BACKUP
    assert site.asked == ["backup"]


def test_a_restore_goes_to_a_restore_target_only() -> None:
    site = Site({BACKUP: {1: ONE}, RESTORE: {1: ONE}})
    assert site.fabric.resolve(LunAddress(HOSTS, 1), Access.RESTORE).target is RESTORE
    assert site.asked == ["restore"]
    assert refused(Site({BACKUP: {1: ONE}}), LunAddress(HOSTS, 1), Access.RESTORE).reason == "no-target-presents-it"


def test_a_name_finds_the_unit_under_another_number_of_another_target() -> None:
    site = Site({OTHER: {4: TWO, 9: ONE}})
    found = site.fabric.resolve(LunAddress(HOSTS, 1, name=NAA1))
    assert (found.target, found.number) == (OTHER, 9)
    assert site.fabric.resolve(DeviceAddress("/dev/sda", NAA2)).number == 4


def test_a_name_that_is_not_unique_in_the_world_finds_nothing() -> None:
    site = Site({OTHER: {1: WEAK}})
    assert refused(site, DeviceAddress("/dev/sda", WEAK.name)).reason == "no-target-presents-it"
    assert refused(site, LunAddress(HOSTS, 1, name=WEAK.name)).reason == "no-target-presents-it"
    # but a number does, and then the name is compared
    assert Site({BACKUP: {1: WEAK}}).fabric.resolve(LunAddress(HOSTS, 1, name=WEAK.name)).number == 1


def test_name_and_number_that_disagree_are_refused_even_if_the_name_exists() -> None:
    error = refused(Site({BACKUP: {1: TWO, 2: ONE}}), LunAddress(HOSTS, 1, name=NAA1))
    assert error.reason == "lun-identity"
    assert NAA2 in error.detail
    assert "presents" in error.hint


def test_two_targets_that_present_different_units_under_one_number_are_refused() -> None:
    second = target("second")
    assert refused(Site({BACKUP: {1: ONE}, second: {1: TWO}}), LunAddress(HOSTS, 1)).reason == "lun-identity"
    same = Site({BACKUP: {1: ONE}, second: {1: Identity((NAA2, NAA1))}})
    assert same.fabric.resolve(LunAddress(HOSTS, 1)).target is BACKUP


def test_a_target_that_does_not_let_us_in_gives_its_reason_and_its_hint() -> None:
    failed = LoginFailed(BACKUP.iqn, "192.0.2.1:3260", LoginReason.CHAP, "Authentication failure")
    error = refused(Site({BACKUP: failed, RESTORE: {1: ONE}}), LunAddress(HOSTS, 1))
    assert error.reason == "chap-rejected"
    assert "chap_secret_file" in error.hint


def test_a_target_that_does_not_answer_is_asked_once_and_no_restore_target_instead() -> None:
    failed = LoginFailed(BACKUP.iqn, "192.0.2.1:3260", LoginReason.UNREACHABLE, "no answer within 5 s")
    site = Site({BACKUP: failed, RESTORE: {1: ONE}})
    assert refused(site, LunAddress(HOSTS, 1)).reason == "portal-unreachable"
    assert site.asked == ["backup"]


def test_another_target_of_the_same_kind_helps_when_one_does_not_let_us_in() -> None:
    failed = LoginFailed(BACKUP.iqn, "192.0.2.1:3260", LoginReason.UNREACHABLE, "refused")
    second = target("second")
    assert Site({BACKUP: failed, second: {1: ONE}}).fabric.resolve(LunAddress(HOSTS, 1)).target is second


def test_what_targets_show_is_remembered_until_something_is_missing() -> None:
    site = Site({BACKUP: {1: ONE}})
    for _ in range(3):
        site.fabric.resolve(LunAddress(HOSTS, 1))
    assert site.asked == ["backup"]
    site.fabric.forget()
    site.fabric.resolve(LunAddress(HOSTS, 1))
    assert site.asked == ["backup"] * 2


def test_a_fabric_without_targets_says_what_to_do() -> None:
    assert "[[san.target]]" in refused(Site({}), LunAddress(HOSTS, 1)).hint


@pytest.mark.parametrize(
    "location", [NbdAddress("nbd://x"), DeviceAddress("/dev/sda"), None], ids=["NBD", "device without a name", "none"]
)
def test_layers_that_no_lun_holds_are_refused(location: NbdAddress | DeviceAddress | None) -> None:
    layers = () if location is None else (Layer(location, Format.RAW),)
    with pytest.raises(TransportRefused) as error:
        SanTransport(Site({BACKUP: {1: ONE}}).fabric).probe(FrozenDisk("vda", 1, layers))
    assert error.value.reason == "not-on-san"


def test_the_secret_is_read_at_login_and_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    configured = SanTarget("iqn.x:y", ("192.0.2.1:3260",), "iqn.x:proxy", "proxy", file)
    file.write_text("first-secret\n")
    login = configured.login()
    assert login.secret == "first-secret"
    assert "first-secret" not in repr(login) + repr(configured)
    file.write_text("second-secret")
    assert configured.login().secret == "second-secret"
    file.unlink()
    with pytest.raises(ConfigurationError, match="chap_secret_file"):
        configured.login()
    with pytest.raises(ConfigurationError, match="without"):
        SanTarget("iqn.x:y", (), "iqn.x:proxy", "proxy").login()
