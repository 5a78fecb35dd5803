"""What a lease's addresses say: which disk, which host, which certificate. The rest is tried against the simulated vCenter."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from proxy.errors import CertificateRefused
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refused
from proxy.hypervisor.vsphere.leases import Device, _device, _key, chosen
from proxy.hypervisor.vsphere.tls import Pin

SHA1 = ":".join(["AB"] * 20)
CERTIFICATE = b"a certificate in DER" * 20


def url(address: str = "https://esx1/nfc/ticket/disk-0.vmdk", **facts: Any) -> Any:
    made = vim.HttpNfcLease.DeviceUrl(key="/vm-12/ParaVirtualSCSIController0:1", importKey="", url=address)
    made.sslThumbprint, made.disk = SHA1, True
    for name, value in facts.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("/vm-12/ParaVirtualSCSIController0:1", "scsi0:1"),
        ("/web 01/VirtualLsiLogicSASController3:15", "scsi3:15"),
        ("/vm-12/VirtualBusLogicController0:0", "scsi0:0"),
        ("/vm-12/VirtualNVMEController1:0", "nvme1:0"),
        ("/vm-12/VirtualAHCIController0:29", "sata0:29"),
        ("/vm-12/VirtualIDEController1:0", "ide1:0"),
        ("/vm-12/nvram", ""),
        ("", ""),
    ],
)
def test_a_disk_is_known_by_where_it_is_plugged_in(text: str, key: str) -> None:
    assert _key(text) == key


def test_an_address_is_taken_apart(connect: Callable[..., Vcenter]) -> None:
    found = _device(connect(), url("https://esx1:8443/nfc/ticket/disk-0.vmdk?x=1"), "export")
    assert (found.key, found.host, found.port) == ("scsi0:1", "esx1", 8443)
    assert found.path == "/nfc/ticket/disk-0.vmdk?x=1"
    assert "ticket" not in repr(found)


def test_a_star_stands_for_the_server_that_was_asked(connect: Callable[..., Vcenter]) -> None:
    vcenter = connect()
    found = _device(vcenter, url("https://*/nfc/ticket/disk-0.vmdk", sslThumbprint=""), "export")
    assert (found.host, found.port, found.pin) == (vcenter.settings.host, vcenter.settings.port, vcenter.pin)


@pytest.mark.parametrize(
    "address", ["http://esx1/nfc/ticket/disk", "https://esx1:0/nfc/ticket", "https://esx1:99999/nfc/ticket"]
)
def test_an_address_without_tls_is_refused_and_not_shown(connect: Callable[..., Vcenter], address: str) -> None:
    with pytest.raises(Refused) as error:
        _device(connect(), url(address), "export")
    assert "ticket" not in str(error.value)


def test_the_host_is_known_by_what_vcenter_says_of_it(connect: Callable[..., Vcenter]) -> None:
    vcenter = connect()
    assert _device(vcenter, url(), "export").pin == Pin("ab" * 20)
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(CERTIFICATE).decode()}\n-----END CERTIFICATE-----\n"
    told = _device(vcenter, url(sslCertificate=pem), "export")
    assert told.pin == Pin(hashlib.sha256(CERTIFICATE).hexdigest())


def test_a_host_of_which_nothing_is_said_is_not_spoken_to(connect: Callable[..., Vcenter]) -> None:
    with pytest.raises(CertificateRefused):
        _device(connect(), url(sslThumbprint=""), "export")


def test_a_disk_is_never_guessed() -> None:
    first, second, nameless = (Device(key, "esx1", 443, Pin("ab" * 20), "/nfc/x") for key in ("scsi0:0", "scsi0:1", ""))
    assert chosen([first, second, nameless], "scsi0:1", "export") is second
    assert chosen([nameless], "scsi0:1", "export") is nameless
    for devices in ([], [first], [first, nameless], [nameless, nameless], [second, second]):
        with pytest.raises(Refused):
            chosen(devices, "scsi0:1", "export")
