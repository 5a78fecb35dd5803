"""What people say of where a machine is restored to: read alike on this machine and for a server."""

from proxy.errors import RestoreRefused
from proxy.ports import DiskPlace


def place_in(text: str) -> tuple[str, DiskPlace]:
    """``KEY=PLACE``: a disk's key, and where it goes (a LUN without its portal). Raises ``RestoreRefused``."""
    key, equals, place = text.partition("=")
    if not (key and equals and place):
        raise RestoreRefused(text, "not of the form KEY=PLACE", hint="for example vda=iqn.2026-01.example.san:hosts/7")
    if place.startswith("/"):
        return key, DiskPlace(path=place)
    if place.startswith("["):
        datastore, bracket, path = place[1:].partition("]")
        if not (datastore and bracket):
            raise RestoreRefused(text, "no name of a datastore in brackets", hint="for example scsi0:0='[datastore1]'")
        return key, DiskPlace(datastore=datastore, path=path.strip(), disk=key)
    target, slash, lun = place.rpartition("/")
    if not (slash and lun.isdigit()):
        raise RestoreRefused(text, "the place is neither TARGET_IQN/LUN, an absolute path nor [DATASTORE]")
    return key, DiskPlace(target=target, lun=int(lun))


def renamed_in(text: str) -> tuple[str, str]:
    """``SAVED=NEW``: a network, and the one that takes its place. Raises ``RestoreRefused``."""
    saved, equals, new = text.partition("=")
    if not (saved and equals and new):
        raise RestoreRefused(text, "not of the form SAVED=NEW", hint="for example --network 'VM Network=Isolated'")
    return saved, new
