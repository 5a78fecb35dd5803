import socket
from ipaddress import ip_address

import pytest

from api.refusals import AddressRefused
from appliance.config_web import Web
from appliance.web.addresses import endpoint, endpoint_of_uri, refusal, takes_connections

ANY = Web()


@pytest.mark.parametrize(
    ("uri", "port"),
    [
        ("qemu+ssh://root@192.0.2.7/system", 22),
        ("qemu+ssh://192.0.2.7:2222/system", 2222),
        ("qemu+ssh://backup-user@192.0.2.7/session?no_tty=1", 22),
        ("qemu+tls://192.0.2.7/system", 16514),
        ("qemu://192.0.2.7/system", 16514),
        ("qemu+ssh://[2001:db8::7]/system", 22),
    ],
)
def test_plain_addresses_of_other_machines_are_taken(uri: str, port: int) -> None:
    where = endpoint_of_uri(uri, ANY)
    assert where is not None
    assert (where.port, where.addresses) == (port, (ip_address(where.host),))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "ff02::1",
    ],
)
def test_nobody_is_sent_to_this_machine_to_clouds_or_to_many(address: str) -> None:
    assert refusal(ip_address(address)) != ""


def test_the_addresses_of_this_machine_are_its_own() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            own = probe.getsockname()[0]
        except OSError:
            own = "127.0.0.1"
    assert refusal(ip_address(own)) == "it leads to this machine itself"


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.9", "172.16.0.1", "192.0.2.1", "2001:db8::1", "fd12::1"])
def test_networks_of_a_site_are_where_hypervisors_are(address: str) -> None:
    assert refusal(ip_address(address)) == ""


def test_networks_that_are_named_are_the_only_ones() -> None:
    networks = ("10.0.0.0/8", "127.0.0.0/8", "2001:db8::/32")
    inside = ["10.1.1.1", "127.0.0.1", "::ffff:10.1.1.1", "2001:db8::1"]
    assert [refusal(ip_address(address), networks) for address in inside] == [""] * 4
    for address in ("192.168.1.1", "169.254.169.254", "::1", "2001:db9::1"):
        assert refusal(ip_address(address), networks) != ""


def test_every_address_of_a_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 1, 6, "", (address, 22)) for address in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)
    with pytest.raises(AddressRefused, match="this machine itself"):
        endpoint("kvm.example", 22, ANY)


def test_a_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(AddressRefused, match="nobody knows this host name"):
        endpoint("kvm.example", 22, ANY)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_ports_that_are_none_are_refused(port: int) -> None:
    with pytest.raises(AddressRefused, match="no such port"):
        endpoint("192.0.2.1", port, ANY)


LET = Web(hypervisor_uris=("qemu+unix:///system?socket=/run/libvirt/*", "test:///default"))


@pytest.mark.parametrize(
    ("uri", "let"),
    [
        ("qemu+unix:///system?socket=/run/libvirt/lab.sock", True),
        ("test:///default", True),
        ("qemu+unix:///system?socket=/run/libvirt/../../etc/x", False),
        ("qemu+unix:///system?socket=/run/libvirt/x&command=/bin/sh", False),
        ("qemu+unix:///system?command=/bin/sh&socket=/run/libvirt/x", False),
        ("qemu+unix:///system?socket=/run/libvirt/x%26command=id", False),
        ("qemu+unix:///system", False),
        ("qemu+ext:///system?socket=/run/libvirt/x", False),
        ("qemu+unix://host/system?socket=/run/libvirt/x", False),
    ],
)
def test_what_the_configuration_lets_through_brings_nothing_along(uri: str, let: bool) -> None:
    if let:
        assert endpoint_of_uri(uri, LET) is None
    else:
        with pytest.raises(AddressRefused):
            endpoint_of_uri(uri, LET)


def test_who_listens_takes_connections() -> None:
    web = Web(hypervisor_networks=("127.0.0.0/8",))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert takes_connections(endpoint("127.0.0.1", port, web))
    assert not takes_connections(endpoint("127.0.0.1", port, web))
