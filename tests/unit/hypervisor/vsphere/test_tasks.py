"""Waiting for a task: its end, its error, a limit, a request to stop, a vCenter that forgot it."""

from collections.abc import Callable, Iterator

import pytest

from proxy.errors import Cancelled
from proxy.hypervisor.vsphere import tasks
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from tests.unit.hypervisor.vsphere.scripted_vcenter import CUT, ScriptedVcenter, fault

pytestmark = pytest.mark.slow

Connect = Callable[..., Vcenter]


def info(state: str, *, more: str = "", cancelable: bool = True) -> str:
    """An answer of the property collector about ``task-1``."""
    value = (
        '<val xsi:type="TaskInfo"><key>task-1</key><task type="Task">task-1</task><descriptionId>x</descriptionId>'
        f"<state>{state}</state><cancelled>false</cancelled><cancelable>{str(cancelable).lower()}</cancelable>{more}"
        '<reason xsi:type="TaskReasonUser"><userName>u</userName></reason><queueTime>2026-11-22T12:00:00Z</queueTime>'
        "<eventChainId>1</eventChainId></val>"
    )
    found = f'<objects><obj type="Task">task-1</obj><propSet><name>info</name>{value}</propSet></objects>'
    return f"<returnval>{found}</returnval>"


def failed(name: str, words: str) -> str:
    return info("error", more=f'<error><fault xsi:type="{name}"/><localizedMessage>{words}</localizedMessage></error>')


DONE = info("success", more='<result xsi:type="xsd:string">snapshot-9</result>')


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.01)
    yield


def wait(vcenter: Vcenter, limit: float = 5.0, **more: object) -> object:
    task = vcenter.object(vim.Task, "task-1")
    return tasks.wait(vcenter, task, "snapshot of web", limit=limit, **more)  # type: ignore[arg-type] # by keyword


def test_the_result_comes_back_when_it_is_there(server: ScriptedVcenter, connect: Connect, quick: None) -> None:
    seen: list[int] = []
    running = info("running", more="<progress>40</progress>")
    server.script("RetrievePropertiesEx", info("queued"), running, DONE)
    assert wait(connect(), progress=seen.append) == "snapshot-9"
    assert seen == [40]


def test_the_tasks_own_error_is_classed_and_has_its_words(
    server: ScriptedVcenter, connect: Connect, quick: None
) -> None:
    server.script("RetrievePropertiesEx", failed("ApplicationQuiesceFault", "the guest did not answer"))
    with pytest.raises(Refused, match="the guest did not answer") as error:
        wait(connect())
    assert (error.value.refusal, error.value.fault) == (Refusal.QUIESCE, "ApplicationQuiesceFault")


def test_a_broken_connection_while_waiting_is_nothing(server: ScriptedVcenter, connect: Connect, quick: None) -> None:
    server.script("RetrievePropertiesEx", info("running"), CUT, "503", DONE)
    assert wait(connect()) == "snapshot-9"


def test_after_the_limit_the_task_is_asked_to_end(server: ScriptedVcenter, connect: Connect, quick: None) -> None:
    server.script("RetrievePropertiesEx", info("running"), failed("RequestCanceled", "canceled"))
    with pytest.raises(Refused, match="did not end within 0 s") as error:
        wait(connect(), limit=0.0)
    assert error.value.refusal is Refusal.TASK_TIMEOUT
    assert server.calls["CancelTask"] == 1


def test_a_task_that_cannot_be_ended_is_left_to_itself(server: ScriptedVcenter, connect: Connect, quick: None) -> None:
    server.script("RetrievePropertiesEx", *[info("running", cancelable=False)] * 3)
    with pytest.raises(Refused) as error:
        wait(connect(), limit=0.0)
    assert error.value.refusal is Refusal.TASK_TIMEOUT
    assert server.calls["CancelTask"] == 0


def test_a_request_to_stop_ends_the_task(server: ScriptedVcenter, connect: Connect, quick: None) -> None:
    server.script("RetrievePropertiesEx", info("running"), failed("RequestCanceled", "canceled"))
    with pytest.raises(Cancelled, match="snapshot of web"):
        wait(connect(), cancelled=lambda: True)
    assert server.calls["CancelTask"] == 1


def test_what_was_done_although_it_should_stop_counts_as_done(
    server: ScriptedVcenter, connect: Connect, quick: None
) -> None:
    server.script("RetrievePropertiesEx", info("running"), DONE)
    assert wait(connect(), cancelled=lambda: True) == "snapshot-9"


def test_a_task_that_fails_otherwise_while_it_is_ended_says_so(
    server: ScriptedVcenter, connect: Connect, quick: None
) -> None:
    server.script("CancelTask", fault("InvalidState"))
    server.script("RetrievePropertiesEx", info("running"), failed("NoDiskSpace", "full"))
    with pytest.raises(Refused) as error:
        wait(connect(), cancelled=lambda: True)
    assert error.value.refusal is Refusal.NO_SPACE


def test_a_task_that_a_restarted_vcenter_forgot_may_have_been_done(
    server: ScriptedVcenter, connect: Connect, quick: None
) -> None:
    gone = fault("ManagedObjectNotFound", '<obj type="Task">task-1</obj>')
    server.script("RetrievePropertiesEx", info("running"), gone)
    with pytest.raises(Refused, match="restarted") as error:
        wait(connect())
    assert error.value.refusal is Refusal.OUTCOME_UNKNOWN
