"""Small files of a datastore: whole or an error, asked again where that helps."""

from collections.abc import Callable

import pytest

from proxy.hypervisor.vsphere import files
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from tests.unit.hypervisor.vsphere.scripted_vcenter import ScriptedVcenter

# Each test speaks TLS to a server of its own, in the many ways in which a transfer may end.
pytestmark = pytest.mark.slow

Connect = Callable[..., Vcenter]

PLACE = "/folder/web%20%2B/web.nvram?dcPath=Site%2FDC0&dsName=LUN+1"
PATH = "[LUN 1] web +/web.nvram"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAUSE", 0.01)


def read(vcenter: Vcenter, limit: int = 100) -> bytes | None:
    return files.read(vcenter, "Site/DC0", PATH, limit)


def test_a_file_is_asked_for_by_data_centre_datastore_and_path(server: ScriptedVcenter, connect: Connect) -> None:
    server.rest[f"GET {PLACE}"] = (200, "variables")
    assert read(connect()) == b"variables"
    [(_, _, headers)] = server.rest_calls
    assert "session-1" in headers["Cookie"]


def test_a_file_is_written_whole(server: ScriptedVcenter, connect: Connect) -> None:
    server.rest[f"PUT {PLACE}"] = (201, "")
    files.write(connect(), "Site/DC0", PATH, b"variables")
    assert [(what, body) for what, body, _ in server.rest_calls] == [(f"PUT {PLACE}", "variables")]


def test_a_file_that_is_not_there_is_none(server: ScriptedVcenter, connect: Connect) -> None:
    assert read(connect()) is None
    with pytest.raises(Refused) as error:
        files.write(connect(), "Site/DC0", PATH, b"x")
    assert error.value.refusal is Refusal.FILE_MISSING


@pytest.mark.parametrize("status", [0, 401, 500, 503])
def test_what_broke_off_is_asked_for_again(status: int, server: ScriptedVcenter, connect: Connect) -> None:
    server.rest_first[f"GET {PLACE}"].append((status, "vari"))
    server.rest[f"GET {PLACE}"] = (200, "variables")
    assert read(connect()) == b"variables"


def test_half_a_file_is_never_taken_for_the_whole(server: ScriptedVcenter, connect: Connect) -> None:
    server.rest[f"GET {PLACE}"] = (0, "vari")
    with pytest.raises(Refused) as error:
        read(connect())
    assert error.value.refusal is Refusal.HOST
    assert len(server.rest_calls) == files.ATTEMPTS


@pytest.mark.parametrize(
    ("status", "refusal", "asked"),
    [
        (403, Refusal.NO_PERMISSION, 1),
        (423, Refusal.FILE_LOCKED, 1),
        (400, Refusal.FILE, 1),
        (507, Refusal.NO_SPACE, 3),
        (503, Refusal.HOST, 3),
        (401, Refusal.LOGIN, 3),
    ],
)
def test_a_refusal_is_classed(
    status: int, refusal: Refusal, asked: int, server: ScriptedVcenter, connect: Connect
) -> None:
    server.rest[f"GET {PLACE}"] = (status, "")
    with pytest.raises(Refused, match=f"HTTP {status}") as error:
        read(connect())
    assert error.value.refusal is refusal
    assert len(server.rest_calls) == asked


def test_a_file_that_is_too_large_is_not_read_to_its_end(server: ScriptedVcenter, connect: Connect) -> None:
    server.rest[f"GET {PLACE}"] = (200, "x" * 5000)
    with pytest.raises(Refused, match="larger than 100 bytes"):
        read(connect())


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("[LUN1] web/web.vmdk", ("LUN1", "web/web.vmdk")),
        ("[a b]  c d/e.vmdk", ("a b", "c d/e.vmdk")),
        ("[LUN1]", ("LUN1", "")),
        ("web.vmdk", ("", "web.vmdk")),
        ("[LUN1 web.vmdk", ("", "[LUN1 web.vmdk")),
    ],
)
def test_a_path_names_its_datastore(written: str, parts: tuple[str, str]) -> None:
    assert files.split(written) == parts
