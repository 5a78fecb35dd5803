"""The proxy's own iSCSI initiator in user space, over libiscsi. No kernel block device, so nothing on the proxy mounts,
scans or "repairs" what the hosts own; and a backup session cannot send a command that changes anything.

    build.py       compiles the binding (shim.c, shim.h)      session.py     one connection, one thread, the command list
    scsi.py        CDBs and answers, pure                     paths.py       portals of a target, failover
    vpd.py         names and limits of a unit, pure           lun.py         one unit: retry rules, reading, identity
    allocation.py  GET LBA STATUS -> extents, pure            errors.py      what can go wrong
"""

from proxy.transport.iscsi.errors import CommandFailed, CommandForbidden, LoginFailed, LoginReason, SessionLost
from proxy.transport.iscsi.lun import Lun, read_identity
from proxy.transport.iscsi.paths import Paths
from proxy.transport.iscsi.session import Command, Limits, Login, ReadSession, RestoreToken, WriteSession
from proxy.transport.iscsi.vpd import Identity, is_local

__all__ = [
    "Command",
    "CommandFailed",
    "CommandForbidden",
    "Identity",
    "Limits",
    "Login",
    "LoginFailed",
    "LoginReason",
    "Lun",
    "Paths",
    "ReadSession",
    "RestoreToken",
    "SessionLost",
    "WriteSession",
    "is_local",
    "read_identity",
]
