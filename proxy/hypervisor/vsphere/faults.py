"""vSphere's faults in our words: the classes that a caller can act on. Pure: a fault is known by its type's name.

The names are those of the vSphere Web Services API, "Fault Types". A fault that is not in the table takes the class of its
nearest ancestor there, so that newer faults are understood as what they are a kind of.
"""

from collections.abc import Mapping
from enum import StrEnum

from proxy.errors import HypervisorError


class Refusal(StrEnum):
    """What a caller can do something about.

    ``OUTCOME_UNKNOWN``: the connection broke after a call was sent that changes something, or vCenter forgot a task: it may
    have been done or not, so look before asking again. ``UNREADABLE``: it answered what nobody understands; what was asked may
    have been done, too.
    ``TASK_TIMEOUT``: we stopped waiting; the task may still go on.
    """

    NO_PERMISSION = "no-permission"
    LOGIN = "login-refused"
    GONE = "gone"
    BUSY = "busy"
    STATE = "wrong-state"
    DISABLED = "method-disabled"
    QUIESCE = "quiesce-failed"
    SNAPSHOT = "snapshot-refused"
    NO_SPACE = "no-space"
    FILE_MISSING = "file-missing"
    FILE_LOCKED = "file-locked"
    FILE = "file-fault"
    NAME_TAKEN = "name-taken"
    NOT_SUPPORTED = "not-supported"
    ARGUMENT = "invalid-argument"
    TIMEOUT = "timed-out"
    HOST = "host-trouble"
    LICENSE = "licence"
    CANCELED = "canceled"
    TASK_TIMEOUT = "task-time-limit"
    OUTCOME_UNKNOWN = "outcome-unknown"
    UNREADABLE = "answer-not-understood"
    OTHER = "other"


class Refused(HypervisorError):
    """vSphere said no. ``refusal`` classes it; ``fault`` is the type's name in the API, ``why`` its own words.

    ``privilege``: what was missing (``VirtualMachine.State.CreateSnapshot``), only with ``NO_PERMISSION``.
    ``subject``: the object's id that the fault names (missing privilege, vanished object).
    """

    def __init__(
        self,
        what: str,
        why: str,
        refusal: Refusal = Refusal.OTHER,
        *,
        fault: str = "",
        privilege: str = "",
        subject: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(what, why, hint=hint or _HINTS.get(refusal, ""))
        self.refusal = refusal
        self.why = why
        self.fault = fault
        self.privilege = privilege
        self.subject = subject


_HINTS: Mapping[Refusal, str] = {
    Refusal.NO_PERMISSION: "give the role this privilege; 'lanfree doctor' lists all that are needed",
    Refusal.OUTCOME_UNKNOWN: "it may have been done or not; the next start looks and cleans up",
    Refusal.NO_SPACE: "free space on the machine's datastore",
    Refusal.HOST: "look whether vCenter shows the host as connected",
    Refusal.LICENSE: "the host's licence does not allow this call",
}

_CLASSES: Mapping[str, Refusal] = {
    "InvalidLogin": Refusal.LOGIN,
    "NoPermission": Refusal.NO_PERMISSION,
    "ManagedObjectNotFound": Refusal.GONE,
    "NotFound": Refusal.GONE,
    "TaskInProgress": Refusal.BUSY,
    "ResourceInUse": Refusal.BUSY,
    "ConcurrentAccess": Refusal.BUSY,
    "MethodDisabled": Refusal.DISABLED,
    "MethodAlreadyDisabledFault": Refusal.DISABLED,
    "InvalidState": Refusal.STATE,
    "ApplicationQuiesceFault": Refusal.QUIESCE,
    "FilesystemQuiesceFault": Refusal.QUIESCE,
    "QuiesceFault": Refusal.QUIESCE,
    "SnapshotFault": Refusal.SNAPSHOT,
    "NoDiskSpace": Refusal.NO_SPACE,
    "FileNotFound": Refusal.FILE_MISSING,
    "FileLocked": Refusal.FILE_LOCKED,
    "FileFault": Refusal.FILE,
    "DuplicateName": Refusal.NAME_TAKEN,
    "AlreadyExists": Refusal.NAME_TAKEN,
    "FileAlreadyExists": Refusal.NAME_TAKEN,
    "NotSupported": Refusal.NOT_SUPPORTED,
    "MethodNotFound": Refusal.NOT_SUPPORTED,
    "NotImplemented": Refusal.NOT_SUPPORTED,
    "InvalidArgument": Refusal.ARGUMENT,
    "InvalidRequest": Refusal.ARGUMENT,
    "InvalidName": Refusal.ARGUMENT,
    "Timedout": Refusal.TIMEOUT,
    "HostCommunication": Refusal.HOST,
    "HostConnectFault": Refusal.HOST,
    "HostNotConnected": Refusal.HOST,
    "HostNotReachable": Refusal.HOST,
    "NotEnoughLicenses": Refusal.LICENSE,
    "RestrictedVersion": Refusal.LICENSE,
    "RequestCanceled": Refusal.CANCELED,
}


def refused(what: str, fault: object) -> Refused:
    """A fault (of a call, or the error of a task) as our error. ``what``: what was asked, for people."""
    name = fault_name(fault)
    refusal = next((_CLASSES[kind] for kind in _ancestry(fault) if kind in _CLASSES), Refusal.OTHER)
    privilege = str(getattr(fault, "privilegeId", None) or "")
    subject = getattr(fault, "object", None) if refusal is Refusal.NO_PERMISSION else getattr(fault, "obj", None)
    missing = f"privilege {privilege} is missing" if privilege else ""
    return Refused(
        what,
        "; ".join(filter(None, [name, missing, *_words(fault)])),
        refusal,
        fault=name,
        privilege=privilege,
        subject=moid(subject),
    )


def refusal_of(name: str) -> Refusal:
    """The class of a fault of which only the name is known."""
    return _CLASSES.get(name, Refusal.OTHER)


def fault_name(fault: object) -> str:
    """The type's name in the API: ``InvalidPowerState``."""
    return type(fault).__name__.rpartition(".")[2]


def moid(reference: object) -> str:
    """Id of a managed object (``vm-12``), empty for anything else."""
    return str(getattr(reference, "_moId", "") or "")


def _ancestry(fault: object) -> list[str]:
    return [kind.__name__.rpartition(".")[2] for kind in type(fault).__mro__]


def _words(fault: object) -> list[str]:
    """What the server says about it: its message, then the more detailed ones, each once."""
    found = [getattr(fault, "msg", None), getattr(fault, "reason", None), getattr(fault, "name", None)]
    found += [getattr(message, "message", None) for message in getattr(fault, "faultMessage", None) or ()]
    found.append(getattr(getattr(fault, "faultCause", None), "msg", None))
    words = [" ".join(str(text).split()) for text in found if isinstance(text, str) and text.strip()]
    return list(dict.fromkeys(words))
