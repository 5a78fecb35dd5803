"""Tags over both spellings of vCenter's REST interface; the simulator only speaks the older one."""

import base64
import json
from collections.abc import Callable

import pytest

from proxy.errors import HostUnreachable
from proxy.hypervisor.vsphere import tags
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.tags import Tag, TagService
from tests.unit.hypervisor.vsphere.scripted_vcenter import ScriptedVcenter

# Each test speaks TLS to a server of its own, in the many ways in which a vCenter may answer.
pytestmark = pytest.mark.slow

Connect = Callable[..., Vcenter]

OLD = {
    "POST /rest/com/vmware/cis/session": (200, '{"value": "ticket-1"}'),
    "DELETE /rest/com/vmware/cis/session": (200, ""),
    "POST /rest/com/vmware/cis/tagging/tag-association?~action=list-attached-tags-on-objects": (
        200,
        json.dumps(
            {"value": [{"object_id": {"id": "vm-1", "type": "VirtualMachine"}, "tag_ids": ["urn:t:1", "urn:t:2"]}]}
        ),
    ),
    "GET /rest/com/vmware/cis/tagging/tag": (200, '{"value": ["urn:t:1", "urn:t:2"]}'),
    "GET /rest/com/vmware/cis/tagging/tag/id:urn:t:1": (200, '{"value": {"name": "gold", "category_id": "urn:c:1"}}'),
    "GET /rest/com/vmware/cis/tagging/tag/id:urn:t:2": (200, '{"value": {"name": "berlin", "category_id": "urn:c:1"}}'),
    "GET /rest/com/vmware/cis/tagging/category/id:urn:c:1": (200, '{"value": {"name": "backup"}}'),
    "POST /rest/com/vmware/cis/tagging/tag-association/id:urn:t:1?~action=attach": (200, ""),
}

NEW = {
    "POST /api/session": (201, '"ticket-2"'),
    "DELETE /api/session": (204, ""),
    "POST /api/cis/tagging/tag-association?action=list-attached-tags-on-objects": (
        200,
        json.dumps([{"object_id": {"id": "vm-1", "type": "VirtualMachine"}, "tag_ids": ["urn:t:1"]}]),
    ),
    "GET /api/cis/tagging/tag": (200, '["urn:t:1"]'),
    "GET /api/cis/tagging/tag/urn:t:1": (200, '{"name": "gold", "category_id": "urn:c:1"}'),
    "GET /api/cis/tagging/category/urn:c:1": (200, '{"name": "backup"}'),
    "POST /api/cis/tagging/tag-association/urn:t:1?action=attach": (204, ""),
}


def test_tags_are_read_with_the_names_of_their_categories(server: ScriptedVcenter, connect: Connect) -> None:
    server.rest = dict(OLD)
    with TagService(connect()) as service:
        assert service.attached("VirtualMachine", ["vm-1"]) == {
            "vm-1": (Tag("backup", "berlin"), Tag("backup", "gold"))
        }
    asked = [what for what, _, _ in server.rest_calls]
    assert asked.count("GET /rest/com/vmware/cis/tagging/category/id:urn:c:1") == 1
    assert asked[-1] == "DELETE /rest/com/vmware/cis/session"
    assert all(h["vmware-api-session-id"] == "ticket-1" for _, _, h in server.rest_calls[1:])
    assert not any("Authorization" in h for _, _, h in server.rest_calls[1:])


def test_where_the_older_spelling_is_gone_the_newer_is_spoken(server: ScriptedVcenter, connect: Connect) -> None:
    server.rest = dict(NEW)
    with TagService(connect()) as service:
        assert service.attached("VirtualMachine", ["vm-1"]) == {"vm-1": (Tag("backup", "gold"),)}
        assert service.attach("VirtualMachine", "vm-1", [Tag("backup", "gold"), Tag("backup", "no")]) == (
            Tag("backup", "no"),
        )
    attached = next(body for what, body, _ in server.rest_calls if "action=attach" in what)
    assert json.loads(attached) == {"object_id": {"id": "vm-1", "type": "VirtualMachine"}}


def test_many_objects_are_asked_about_in_portions(
    server: ScriptedVcenter, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "BATCH", 2)
    server.rest = dict(OLD)
    with TagService(connect()) as service:
        service.attached("VirtualMachine", ["vm-1", "vm-2", "vm-3"])
    asked = [json.loads(body)["object_ids"] for what, body, _ in server.rest_calls if "list-attached" in what]
    assert [[one["id"] for one in portion] for portion in asked] == [["vm-1", "vm-2"], ["vm-3"]]


def test_a_tag_that_was_deleted_meanwhile_is_left_out(server: ScriptedVcenter, connect: Connect) -> None:
    server.rest = {k: v for k, v in OLD.items() if not k.endswith("tag/id:urn:t:2")}
    with TagService(connect()) as service:
        assert service.attached("VirtualMachine", ["vm-1"]) == {"vm-1": (Tag("backup", "gold"),)}


@pytest.mark.parametrize(
    ("status", "refusal"), [(401, Refusal.LOGIN), (403, Refusal.NO_PERMISSION), (503, Refusal.OTHER)]
)
def test_a_refused_session_is_told_without_the_password(
    status: int, refusal: Refusal, server: ScriptedVcenter, connect: Connect
) -> None:
    server.rest = {**OLD, "POST /rest/com/vmware/cis/session": (status, "secret-1")}
    with pytest.raises(Refused) as error, TagService(connect()):
        pass
    assert error.value.refusal is refusal
    assert "secret-1" not in str(error.value)
    sent = next(h["Authorization"] for _, _, h in server.rest_calls)
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"backup@vsphere.local:secret-1"


def test_a_refusal_in_the_middle_is_told(server: ScriptedVcenter, connect: Connect) -> None:
    server.rest = {**OLD, "GET /rest/com/vmware/cis/tagging/tag/id:urn:t:1": (403, "")}
    with pytest.raises(Refused) as error, TagService(connect()) as service:
        service.attached("VirtualMachine", ["vm-1"])
    assert error.value.refusal is Refusal.NO_PERMISSION


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        "[",
        "7",
        '{"value": 7}',
        '{"value": [{"tag_ids": ["urn:t:1"]}]}',
        '{"value": [7]}',
        '{"value": {"a": 1}}',
    ],
)
def test_an_answer_of_another_shape_is_told(answer: str, server: ScriptedVcenter, connect: Connect) -> None:
    listing = "POST /rest/com/vmware/cis/tagging/tag-association?~action=list-attached-tags-on-objects"
    server.rest = {**OLD, listing: (200, answer)}
    with pytest.raises(Refused) as error, TagService(connect()) as service:
        service.attached("VirtualMachine", ["vm-1"])
    assert error.value.refusal is Refusal.UNREADABLE


def test_a_vcenter_that_does_not_answer_is_told_as_such(server: ScriptedVcenter, connect: Connect) -> None:
    server.stop()
    with pytest.raises(HostUnreachable), TagService(connect()):
        pass
