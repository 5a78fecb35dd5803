"""Two calls that vCenter offers to backup software and that its public description leaves out: no relocation meanwhile.

``AuthorizationManager.DisableMethods`` and ``EnableMethods`` (name space ``internalvim25``), which VDDK's PrepareForAccess and
EndAccess use. pyVmomi does not know them, so the two envelopes are written here. Both may be asked twice: a method that is
already disabled by the same source answers ``MethodAlreadyDisabledFault``, which is what was wanted.
"""

import http.client
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused, moid, refusal_of

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
NAMESPACE = "urn:internalvim25"

# Once for the session that has ended meanwhile, and once for a connection that broke: both calls can be repeated.
ATTEMPTS = 3


def disable_methods(vcenter: Vcenter, objects: Sequence[Any], methods: Sequence[str], *, source: str, why: str) -> None:
    """``methods`` (``RelocateVM_Task``) answer ``MethodDisabled`` until ``enable_methods`` by the same ``source``.

    It outlives the session and a restart of vCenter. Raises ``Refused``.
    """
    asked = "".join(f"<method><method>{escape(m)}</method><reasonId>{escape(why)}</reasonId></method>" for m in methods)
    try:
        _call(vcenter, "DisableMethods", _entities(objects) + asked + f"<sourceId>{escape(source)}</sourceId>")
    except Refused as error:
        if error.fault != "MethodAlreadyDisabledFault":
            raise


def enable_methods(vcenter: Vcenter, objects: Sequence[Any], methods: Sequence[str], *, source: str) -> None:
    """Undo what ``source`` disabled; what others disabled stays so, what was not disabled is no error."""
    named = "".join(f"<method>{escape(m)}</method>" for m in methods)
    _call(vcenter, "EnableMethods", _entities(objects) + named + f"<sourceId>{escape(source)}</sourceId>")


def _entities(objects: Sequence[Any]) -> str:
    return "".join(f"<entity type={quoteattr(_kind(o))}>{escape(moid(o))}</entity>" for o in objects)


def _kind(managed: Any) -> str:
    return str(getattr(managed, "_wsdlName", "VirtualMachine"))


def _call(vcenter: Vcenter, method: str, parameters: str) -> None:
    for _ in range(ATTEMPTS - 1):
        try:
            return _once(vcenter, method, parameters)
        except (OSError, http.client.HTTPException):
            vcenter.now()  # waits for a vCenter that restarts
        except Refused as error:
            if error.fault != "NotAuthenticated":
                raise
            vcenter.now()  # logs in again
    try:
        return _once(vcenter, method, parameters)
    except (OSError, http.client.HTTPException) as error:
        raise Refused(method, str(error) or type(error).__name__, Refusal.OUTCOME_UNKNOWN) from None


def _once(vcenter: Vcenter, method: str, parameters: str) -> None:
    manager = vcenter.content.authorizationManager
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="{SOAP}"><soapenv:Body>'
        f'<{method} xmlns="{NAMESPACE}"><_this type="AuthorizationManager">{escape(moid(manager))}</_this>{parameters}'
        f"</{method}></soapenv:Body></soapenv:Envelope>"
    )
    headers = {
        "Content-Type": "text/xml; charset=UTF-8",
        "SOAPAction": f'"{NAMESPACE}/{vcenter.content.about.apiVersion}"',
        "Cookie": vcenter.cookie(),
    }
    connection = vcenter.http()
    try:
        connection.request("POST", "/sdk", body.encode(), headers)
        answer = connection.getresponse()
        text = answer.read(1024 * 1024)  # an acknowledgement or one fault
    finally:
        connection.close()
    if answer.status != 200:
        raise _fault(method, answer.status, text)


def _fault(method: str, status: int, text: bytes) -> Exception:
    """``Refused`` for a SOAP fault, the network's own error for anything else."""
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - from the pinned server; expat limits entity expansion
    except ElementTree.ParseError:
        return http.client.HTTPException(f"{status} without a fault")
    fault = root.find(f".//{{{SOAP}}}Fault")
    if fault is None:
        return http.client.HTTPException(f"{status} without a fault")
    detail = fault.find("detail/*")
    kind = "" if detail is None else detail.get("{http://www.w3.org/2001/XMLSchema-instance}type", detail.tag)
    name = kind.rpartition("}")[2].rpartition(":")[2].removesuffix("Fault") or "Fault"
    if kind.endswith("MethodAlreadyDisabledFault"):
        name = "MethodAlreadyDisabledFault"
    privilege = (
        "" if detail is None else next((e.text or "" for e in detail.iter() if e.tag.endswith("privilegeId")), "")
    )
    words = " ".join(filter(None, [name, fault.findtext("faultstring"), privilege]))
    return Refused(method, words, refusal_of(name), fault=name, privilege=privilege)
