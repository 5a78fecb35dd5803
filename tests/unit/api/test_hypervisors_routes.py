import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Permission, Role
from appliance import config
from appliance.config_web import Web
from appliance.inventory import refresh
from appliance.web import hypervisors
from appliance.web.tls import identity
from catalog.jobs.values import TaskKind
from proxy.hypervisor.several import Sites
from tests.unit.api.api_site import ApiSite

API = "/api/v1"

pytestmark = pytest.mark.slow


def kvm(uri: str, **more: Any) -> dict[str, Any]:
    return {"kind": "kvm", "name": "kvm9", "uri": uri, **more}


def vcenter(host: str, port: int = 443, **more: Any) -> dict[str, Any]:
    said = {"kind": "vcenter", "name": "vc", "host": host, "port": port, "user": "backup", "password": "s3cret!"}
    return {**said, **more}


def allow(site: ApiSite, key: str, value: str) -> None:
    """Let the configuration's ``[web]`` say so."""
    with site.file.open("a") as file:
        file.write(f'[web]\n{key} = ["{value}"]\n')
    site.services.reconfigure(config.load(site.file))


@pytest.fixture
def talker() -> Iterator[tuple[int, list[bytes]]]:
    """Something that listens on this machine, says a secret to whoever comes, and keeps what it is sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(b"SECRET-BANNER 1.0\r\n")
                    connection.settimeout(1)
                    try:
                        heard.append(connection.recv(4096))
                    except OSError:
                        heard.append(b"")

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], heard
        ended.set()
        thread.join()


def test_hypervisors_are_told_with_their_last_look(site: ApiSite, api: TestClient) -> None:
    site.machine("web-1")
    site.machine("db-1", host="h2")
    refresh(site.services)
    site.memory.silent.add("h2")
    refresh(site.services)
    found = {one["name"]: one for one in api.get(f"{API}/hypervisors").json()["items"]}
    assert {name: (one["state"], one["machines"]) for name, one in found.items()} == {
        "h1": ("ok", 1),
        "h2": ("silent", 1),
    }
    assert (found["h2"]["error"], found["h2"]["configured"]) == ("silent", False)
    assert "libvirtd" in found["h2"]["hint"]
    assert [one["name"] for one in api.get(f"{API}/machines", params={"host": "h2"}).json()["items"]] == ["db-1"]


def test_the_tree_has_what_the_caller_reaches(
    site: ApiSite, api: TestClient, api_as: Callable[..., TestClient]
) -> None:
    for name, host in (("web-1", "h1"), ("web-2", "h1"), ("db-1", "h2")):
        site.machine(name, host=host)
    gone = site.machine("gone")
    site.point(gone)
    site.memory.remove(gone)
    refresh(site.services)
    tree = api.get(f"{API}/inventory/tree", params={"by": "host"}).json()
    assert [(node["name"], node["count"], node["worst"]) for node in tree["hypervisors"]] == [
        ("h1", 2, "never"),
        ("h2", 1, "never"),
    ]
    assert [one["name"] for one in tree["hypervisors"][0]["machines"]] == ["web-1", "web-2"]
    assert [one["name"] for one in tree["former"]] == ["gone"]
    tree = api_as(Role.OPERATOR, machines=("db-*",)).get(f"{API}/inventory/tree").json()
    assert [(node["name"], node["count"]) for node in tree["hypervisors"]] == [("h1", 0), ("h2", 1)]
    assert tree["former"] == []


def test_a_look_is_a_task_that_somebody_asked_for(
    site: ApiSite, api: TestClient, api_as: Callable[..., TestClient]
) -> None:
    answer = api.post(f"{API}/hypervisors/refresh")
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"{API}/tasks/{answer.json()['id']}"
    with site.services.jobs.transaction(write=False) as unit:
        assert [task.kind for task in unit.tasks.newest()] == [TaskKind.INVENTORY]
    few = api_as(Role.OPERATOR, machines=("db-*",)).post(f"{API}/hypervisors/refresh")
    assert (few.status_code, few.json()["code"]) == (403, "beyond-reach")


BAD = [
    "qemu:///system",
    "test:///default",
    "qemu+ssh://127.0.0.1/system",
    "qemu+ssh://localhost/system",
    "qemu+ssh://[::1]/system",
    "qemu+ssh://[::ffff:127.0.0.1]/system",
    "qemu+tls://0.0.0.0/system",
    "qemu+tls://169.254.169.254/system",
    "qemu+tls://[fe80::1]/system",
    "qemu+tls://224.0.0.1/system",
    "qemu+ssh://2130706433/system",
    "qemu+ssh://-oProxyCommand=id/system",
    "qemu+ssh://-oProxyCommand@kvm/system",
    "qemu+ssh://root:secret@192.0.2.1/system",
    "qemu+ssh://192.0.2.1/system?command=/bin/sh",
    "qemu+ssh://192.0.2.1/system?netcat=/bin/sh",
    "qemu+ssh://192.0.2.1/system?no_tty=1&keyfile=/etc/shadow",
    "qemu+ssh://192.0.2.1/system?socket=/run/secret",
    "qemu+ext://192.0.2.1/system?command=id",
    "qemu+unix:///system?socket=/tmp/x",
    "qemu+libssh2://192.0.2.1/system",
    "qemu+ssh://192.0.2.1/%73ystem",
    "qemu+ssh://192.0.2.1/system#x",
    "qemu+ssh://192.0.2.1\n/system",
    "xen+ssh://192.0.2.1/system",
    "esx://192.0.2.1/",
    "http://192.0.2.1/system",
]


def test_addresses_that_lead_astray_are_refused_before_anybody_is_asked(site: ApiSite, api: TestClient) -> None:
    for uri in BAD:
        answer = api.post(f"{API}/hypervisors", json=kvm(uri))
        assert (answer.status_code, answer.json()["code"]) == (422, "address-refused"), (uri, answer.text)
        assert "secret" not in answer.text
    for host in ("127.0.0.1", "localhost", "169.254.169.254", "::1", "a b", "x/y", "evil\r\nHost: a"):
        said = api.post(f"{API}/hypervisors/certificate", json={"host": host})
        assert (said.status_code, said.json()["code"]) == (422, "address-refused"), (host, said.text)
    assert config.load(site.file).host == ()


def test_what_a_port_says_is_not_repeated(site: ApiSite, api: TestClient, talker: tuple[int, list[bytes]]) -> None:
    port, heard = talker
    allow(site, "hypervisor_networks", "127.0.0.0/8")
    said = api.post(f"{API}/hypervisors/certificate", json={"host": "127.0.0.1", "port": port})
    assert (said.status_code, said.json()["code"]) == (502, "host-unreachable")
    tried = api.post(f"{API}/hypervisors", json=vcenter("127.0.0.1", port, thumbprint="ab" * 32))
    assert tried.status_code == 502
    assert "SECRET" not in said.text + tried.text
    assert all(b"s3cret" not in each for each in heard)
    assert not list((site.services.settings.state.directory / "secrets").glob("*"))


def test_a_vcenter_is_recognised_by_a_person_first(site: ApiSite, api: TestClient, tls_port: int) -> None:
    allow(site, "hypervisor_networks", "127.0.0.0/8")
    seen = api.post(f"{API}/hypervisors/certificate", json={"host": "127.0.0.1", "port": tls_port}).json()
    assert seen["thumbprint"].count(":") == 31
    unconfirmed = api.post(f"{API}/hypervisors", json=vcenter("127.0.0.1", tls_port))
    assert (unconfirmed.status_code, unconfirmed.json()["code"]) == (409, "certificate-unconfirmed")
    assert seen["thumbprint"] in unconfirmed.json()["detail"]
    other = api.post(f"{API}/hypervisors", json=vcenter("127.0.0.1", tls_port, thumbprint="ab" * 32))
    assert (other.status_code, other.json()["code"]) == (502, "certificate-refused")
    assert config.load(site.file).vcenter == ()


def test_adding_and_removing_changes_the_configuration_and_is_recorded(site: ApiSite, api: TestClient) -> None:
    allow(site, "hypervisor_uris", "test:///default")
    site.machine("web-1")
    # The hypervisor in memory is what answers there.
    site.services.__dict__["site"] = lambda _hosts: Sites([site.memory], lambda _configuration, _new: None)
    tried = api.post(f"{API}/hypervisors", json=kvm("test:///default", check_only=True))
    assert tried.status_code == 201, tried.text
    assert (tried.json()["machines"], tried.json()["added"]) == (1, False)
    assert config.load(site.file).host == ()
    added = api.post(f"{API}/hypervisors", json=kvm("test:///default"))
    assert (added.status_code, added.json()["added"]) == (201, True)
    assert [host.name for host in config.load(site.file).host] == ["kvm9"]
    again = api.post(f"{API}/hypervisors", json=kvm("test:///default"))
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert [(one["name"], one["configured"]) for one in api.get(f"{API}/hypervisors").json()["items"]] == [
        ("kvm9", True)
    ]
    assert api.delete(f"{API}/hypervisors/kvm9").status_code == 204
    assert api.delete(f"{API}/hypervisors/kvm9").status_code == 404
    assert config.load(site.file).host == ()
    assert [entry.action for entry in site.services.catalog.audit.list()] == [
        "remove-hypervisor",
        "add-hypervisor",
        "try-hypervisor",
    ]


def test_a_second_click_takes_nothing_from_the_vcenter_that_the_first_one_added(
    site: ApiSite, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(site, "hypervisor_networks", "127.0.0.0/8")
    both = threading.Barrier(2)

    def answers(*_: object) -> int:
        both.wait(30)  # both have found the name free by then
        return 1

    monkeypatch.setattr(hypervisors, "try_vcenter", answers)
    said: list[int] = []

    def click(password: str) -> None:
        body = vcenter("127.0.0.1", thumbprint="ab" * 32, password=password)
        said.append(api.post(f"{API}/hypervisors", json=body).status_code)

    clicks = [threading.Thread(target=click, args=(password,)) for password in ("first", "second")]
    for each in clicks:
        each.start()
    for each in clicks:
        each.join(60)
    assert sorted(said) == [201, 422]
    (section,) = config.load(site.file).vcenter
    assert section.password_file.read_text().strip() in {"first", "second"}
    assert list(section.password_file.parent.iterdir()) == [section.password_file]
    assert api.delete(f"{API}/hypervisors/vc").status_code == 204
    assert list(section.password_file.parent.iterdir()) == []


def test_only_those_who_configure_all_of_it_add_hypervisors(api_as: Callable[..., TestClient]) -> None:
    assert api_as(Role.OPERATOR).post(f"{API}/hypervisors", json=kvm("qemu+ssh://192.0.2.1/system")).status_code == 403
    some = api_as(Permission.CONFIGURE, machines=("db-*",))
    answer = some.post(f"{API}/hypervisors", json=kvm("qemu+ssh://192.0.2.1/system"))
    assert (answer.status_code, answer.json()["code"]) == (403, "beyond-reach")


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", ".hidden", "ä", "x" * 300])
def test_names_that_are_no_names_are_refused(api: TestClient, name: str) -> None:
    answer = api.post(f"{API}/hypervisors", json={**kvm("qemu+ssh://192.0.2.1/system"), "name": name})
    assert answer.status_code == 422


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A server with a certificate of its own, which says nothing beyond the handshake."""
    context = identity(Web(), tmp_path / "tls").context()
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                    connection.settimeout(5)
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        ended.set()
        thread.join()
