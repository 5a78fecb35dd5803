"""Properties of many objects in few round trips: vSphere's PropertyCollector, with its paging.

A page that cannot be fetched (session ended, vCenter restarted) makes the whole question be asked again: the token of a
page is worth nothing in another session, and half an inventory is worse than none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from proxy.hypervisor.vsphere.connection import Vcenter, vim, vmodl
from proxy.hypervisor.vsphere.faults import Refusal, Refused, moid

# Objects a page. A machine's configuration is some 20 to 60 KiB of XML: smaller pages cost round trips, larger ones hold
# megabytes of it in vCenter at once for one client.
PAGE = 100

# Whole questions asked again before it is given up; each one already waited for vCenter as long as that may take.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Found:
    """One object with the properties that were asked for and that it has.

    ``missing``: properties that could not be read, mostly for want of a privilege, with the fault's name.
    """

    object: Any
    values: Mapping[str, Any]
    missing: Mapping[str, str]

    @property
    def id(self) -> str:
        """The managed object's id: ``vm-12``."""
        return moid(self.object)

    def get(self, path: str, default: Any = None) -> Any:
        """The property, or ``default`` when the object does not have it."""
        return self.values.get(path, default)


def find(vcenter: Vcenter, kind: Any, paths: Sequence[str], *, within: Any = None) -> list[Found]:
    """Every object of a kind below ``within`` (the whole inventory), with its properties ``paths``."""

    def ask() -> list[Found]:
        content = vcenter.content
        view = content.viewManager.CreateContainerView(within or content.rootFolder, [kind], True)
        try:
            walk = vmodl.query.PropertyCollector.TraversalSpec(
                name="view", type=vim.view.ContainerView, path="view", skip=False
            )
            start = vmodl.query.PropertyCollector.ObjectSpec(obj=view, skip=True, selectSet=[walk])
            return _pages(vcenter, kind, paths, [start])
        except Refused as error:
            if error.refusal is Refusal.GONE and error.subject == moid(view):  # the session that made it has ended
                raise _AskAgainError(error) from None
            raise
        finally:
            with suppress(Refused):
                view.DestroyView()  # a view that stays behind ends with the session

    return _persistently(ask)


def read(vcenter: Vcenter, objects: Iterable[Any], paths: Sequence[str], *, kind: Any = None) -> list[Found]:
    """Properties of these objects, in any order; those that are gone by now are left out.

    ``kind``: what they all are, where they are of several kinds (``vim.ManagedEntity``); by default that of the first.
    """
    wanted = {moid(o): o for o in objects}
    found: list[Found] = []
    while wanted:
        page = list(wanted.values())[:PAGE]
        starts = [vmodl.query.PropertyCollector.ObjectSpec(obj=o, skip=False) for o in page]
        try:
            found += _persistently(partial(_pages, vcenter, kind or type(page[0]), paths, starts))
        except Refused as error:
            if error.refusal is not Refusal.GONE or error.subject not in wanted:
                raise
            del wanted[error.subject]
            continue
        for one in page:
            del wanted[moid(one)]
    return found


def read_one(vcenter: Vcenter, one: Any, *paths: str) -> Found:
    """Properties of one object. Raises ``Refused`` (``GONE``)."""
    found = read(vcenter, [one], paths)
    if not found:
        raise Refused(f"read {moid(one)}", "it does not exist any more", Refusal.GONE, subject=moid(one))
    return found[0]


class _AskAgainError(Exception):
    """The question was lost in the middle. ``error``: how."""

    def __init__(self, error: Refused) -> None:
        super().__init__(error.message)
        self.error = error


def _persistently(ask: Callable[[], list[Found]]) -> list[Found]:
    for _ in range(ATTEMPTS - 1):
        with suppress(_AskAgainError):
            return ask()
    try:
        return ask()
    except _AskAgainError as lost:
        raise lost.error from None


def _pages(vcenter: Vcenter, kind: Any, paths: Sequence[str], starts: Sequence[Any]) -> list[Found]:
    collector = vcenter.content.propertyCollector
    what = vmodl.query.PropertyCollector.PropertySpec(type=kind, pathSet=list(paths), all=False)
    question = vmodl.query.PropertyCollector.FilterSpec(objectSet=list(starts), propSet=[what])
    limit = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=PAGE)
    page = collector.RetrievePropertiesEx([question], limit)
    found: list[Found] = []
    while page is not None:
        found += [_found(one) for one in page.objects]
        if any("NotAuthenticated" in one.missing.values() for one in found):
            vcenter.session_ended()  # some servers answer like this, and not with a fault
            raise _AskAgainError(Refused("read properties", "the session has ended", Refusal.LOGIN))
        page = _next_page(collector, page.token) if page.token else None
    return found


def _next_page(collector: Any, token: str) -> Any:
    try:
        return collector.ContinueRetrievePropertiesEx(token)
    except Refused as error:
        if error.refusal in {
            Refusal.OUTCOME_UNKNOWN,
            Refusal.ARGUMENT,
        }:  # broke in the middle; a token of an ended session
            raise _AskAgainError(error) from None
        raise


def _found(one: Any) -> Found:
    missing = {m.path: type(m.fault).__name__.rpartition(".")[2] for m in one.missingSet or ()}
    return Found(one.obj, {p.name: p.val for p in one.propSet or ()}, missing)
