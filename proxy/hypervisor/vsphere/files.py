"""Small files of a machine in its datastore (NVRAM, vmx), through vCenter's datastore browser over HTTPS.

``https://<vcenter>/folder/<path>?dcPath=<datacenter>&dsName=<datastore>`` (vSphere Web Services SDK Programming Guide, "HTTP
Access to vSphere Server Files"). Disks do not go this way: a running machine's are refused, and it is slow.
"""

import http.client
import time
from urllib.parse import quote, urlencode

from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused

# What is asked for here is KiB to a few MiB; a host that needs longer for one answer hangs.
TIMEOUT = 60.0

# The session may have ended, or vCenter hung up: reading or writing a whole small file can be done again.
ATTEMPTS = 3

# Seconds before the second attempt, twice that before the third: for a host that hung up or is busy.
PAUSE = 1.0

_STATUS = {
    401: Refusal.LOGIN,
    403: Refusal.NO_PERMISSION,
    404: Refusal.FILE_MISSING,
    409: Refusal.FILE_LOCKED,
    423: Refusal.FILE_LOCKED,
    507: Refusal.NO_SPACE,
}


def split(path: str) -> tuple[str, str]:
    """``[datastore] folder/file`` -> datastore and path within it; an empty datastore for anything else."""
    if not path.startswith("[") or "]" not in path:
        return "", path
    datastore, _, rest = path[1:].partition("]")
    return datastore, rest.strip()


def read(vcenter: Vcenter, datacenter: str, path: str, limit: int) -> bytes | None:
    """The whole file, ``None`` when there is none. ``datacenter``: its inventory path (``Site/DC0``); ``path``:
    ``[datastore] folder/file``. Raises ``Refused``; ``FILE`` for more than ``limit`` bytes. Needs ``Datastore.Browse``.
    """
    try:
        return _exchange(vcenter, datacenter, path, None, limit)
    except Refused as error:
        if error.refusal is Refusal.FILE_MISSING:
            return None
        raise


def write(vcenter: Vcenter, datacenter: str, path: str, data: bytes) -> None:
    """Make or replace the file. Its folder must exist. Raises ``Refused``. Needs ``Datastore.FileManagement``."""
    _exchange(vcenter, datacenter, path, data, 1024 * 1024)


def _exchange(vcenter: Vcenter, datacenter: str, path: str, data: bytes | None, limit: int) -> bytes:
    datastore, inside = split(path)
    url = f"/folder/{quote(inside)}?{urlencode({'dcPath': datacenter, 'dsName': datastore})}"
    what = f"{'read' if data is None else 'write'} {path}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            status, reason, body = _once(vcenter, url, data, limit)
        except (OSError, http.client.HTTPException) as error:
            status, reason, body = 0, str(error) or type(error).__name__, b""
        if status in {200, 201, 204}:
            if len(body) > limit:
                raise Refused(what, f"it is larger than {limit} bytes", Refusal.FILE)
            return body
        if attempt == ATTEMPTS or not (status in {0, 401} or status >= 500):
            why = f"HTTP {status} {reason}" if status else reason
            raise Refused(
                what, why, _STATUS.get(status, Refusal.HOST if status in {0, 502, 503, 504} else Refusal.FILE)
            )
        if status != 401:
            time.sleep(PAUSE * attempt)
        vcenter.now()  # logs in again when the session has ended, waits when vCenter restarts
    raise AssertionError("the last attempt returned or raised")


def _once(vcenter: Vcenter, url: str, data: bytes | None, limit: int) -> tuple[int, str, bytes]:
    connection = vcenter.http(TIMEOUT)
    try:
        connection.request("GET" if data is None else "PUT", url, data, {"Cookie": vcenter.cookie()})
        answer = connection.getresponse()
        promised = answer.length
        body = answer.read(limit + 1)
        if promised is not None and len(body) < min(promised, limit + 1):
            raise http.client.IncompleteRead(body, promised - len(body))  # read() itself does not mind
        return answer.status, answer.reason, body
    finally:
        connection.close()
