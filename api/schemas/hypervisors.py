"""Hypervisors: hosts and vCenters, and the tree of what they have."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints

from api.schemas.common import Answer, Model, Name
from api.schemas.machines import Protection
from proxy.model import PowerState


class Kind(StrEnum):
    """Of a hypervisor."""

    KVM = "kvm"
    VCENTER = "vcenter"


class LookState(StrEnum):
    """How the last look at a hypervisor went. ``unknown``: nobody looked yet."""

    UNKNOWN = "unknown"
    OK = "ok"
    SILENT = "silent"


class Hypervisor(Answer):
    """A KVM host or a vCenter. ``address``: the URI, or the name of the server; never a secret. ``looked_at``: the last look;
    ``answered_at``: the last one that was answered: since then its machines are the last known ones. ``configured``: false for
    one that was taken out of the configuration and whose machines are still known."""

    name: str
    kind: Kind
    address: str
    configured: bool = True
    state: LookState
    looked_at: datetime | None = None
    answered_at: datetime | None = None
    machines: int = 0
    error: str = ""
    hint: str = ""


class NewKvmHost(Model):
    """``uri``: of libvirt, of the transports ``qemu+ssh``, ``qemu+tls`` (and ``qemu`` alone), as ``qemu+ssh://root@kvm1/system``.
    ``overlay_directory``: path on that host for guest writes during a backup."""

    kind: Literal[Kind.KVM] = Kind.KVM
    name: Name
    uri: Annotated[str, StringConstraints(min_length=1, max_length=1024, strip_whitespace=True)]
    overlay_directory: Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f]*$", max_length=1024)] = (
        "/var/lib/libvirt/images/lanfree"
    )
    check_only: bool = Field(default=False, description="Try the connection, write nothing down.")


class NewVcenter(Model):
    """``thumbprint``: SHA-256 of the certificate that a person has compared with the server's own; without one the answer is a
    problem ``certificate-unconfirmed`` that tells the one that was seen. ``password``: kept in a file that only the appliance
    reads."""

    kind: Literal[Kind.VCENTER]
    name: Name
    host: Annotated[str, StringConstraints(min_length=1, max_length=253, strip_whitespace=True)]
    port: Annotated[int, Field(ge=1, le=65535)] = 443
    user: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    password: SecretStr
    thumbprint: Annotated[str, StringConstraints(pattern=r"^(?:[0-9A-Fa-f]{2}:?){32}$")] | None = None
    check_only: bool = Field(default=False, description="Try the connection, write nothing down.")


NewHypervisor = Annotated[NewKvmHost | NewVcenter, Field(discriminator="kind")]


class Tried(Answer):
    """How the trial went. ``machines``: that it shows; ``added``: whether it is in the configuration now."""

    name: str
    kind: Kind
    machines: int
    added: bool


class Certificate(Answer):
    """What a server showed, to be compared by a person. ``thumbprint``: SHA-256, as ``AB:CD:…``."""

    host: str
    port: int
    thumbprint: str
    subject: str = ""
    not_after: datetime | None = None


class CertificateRequest(Model):
    """Whose certificate to look at."""

    host: Annotated[str, StringConstraints(min_length=1, max_length=253, strip_whitespace=True)]
    port: Annotated[int, Field(ge=1, le=65535)] = 443


class TreeMachine(Answer):
    """A leaf."""

    id: str
    name: str
    state: PowerState | None = None
    protection: Protection
    points: int


class TreeNode(Answer):
    """``kind``: hypervisor, cluster, host or folder. ``worst``: of all machines below; ``count``: of them. ``machines``: that
    are right here; cut off at 1000 with ``more`` telling how many there are besides."""

    kind: Literal["hypervisor", "cluster", "host", "folder"]
    id: str = Field(description="Unique in the tree.")
    name: str
    state: LookState | None = Field(default=None, description="Of hypervisors.")
    worst: Protection | None = None
    count: int
    children: list["TreeNode"] = Field(default_factory=list)
    machines: list[TreeMachine] = Field(default_factory=list)
    more: int = 0


class Tree(Answer):
    """By hypervisor. ``by``: what is below: folders, or clusters and hosts."""

    by: Literal["folder", "host"]
    hypervisors: list[TreeNode]
    former: list[TreeMachine] = Field(default_factory=list, description="Machines that no hypervisor shows any more.")
