"""Hypervisors, and the tree of what they have."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response, status

from api.auth.roles import Caller, Permission
from api.deps import TheDesk, Viewer, requires
from api.errors import PROBLEMS
from api.paging import Page
from api.routes.work import begun
from api.schemas.hypervisors import Certificate, CertificateRequest, Hypervisor, NewHypervisor, Tree, Tried
from api.schemas.tasks import Task

router = APIRouter(tags=["hypervisors"], responses=PROBLEMS)

Configurer = Annotated[Caller, requires(Permission.CONFIGURE)]


@router.get("/hypervisors", summary="Hosts and vCenters, and how the last look at each went")
def list_hypervisors(caller: Viewer, desk: TheDesk) -> Page[Hypervisor]:
    """All of them, on one page; asks none."""
    return Page(items=list(desk.hypervisors.list(caller)))


@router.post("/hypervisors", summary="Add one", status_code=status.HTTP_201_CREATED)
def add_hypervisor(new: NewHypervisor, caller: Configurer, desk: TheDesk) -> Tried:
    """It is tried first, and written into the configuration if that went well. A vCenter's certificate has to be confirmed by
    its thumbprint, see `POST /hypervisors/certificate`."""
    return desk.hypervisors.add(caller, new)


@router.post("/hypervisors/certificate", summary="Look at a server's certificate")
def look_at_certificate(asked: CertificateRequest, caller: Configurer, desk: TheDesk) -> Certificate:
    """For a person to compare with what the server's own console shows. Nothing is sent to it."""
    return desk.hypervisors.certificate(caller, asked.host, asked.port)


@router.post("/hypervisors/refresh", summary="Look at all of them now", status_code=status.HTTP_202_ACCEPTED)
def refresh_hypervisors(
    caller: Annotated[Caller, requires(Permission.MAINTAIN)], desk: TheDesk, response: Response
) -> Task:
    """What serves does so every five minutes by itself."""
    return begun(response, desk.hypervisors.refresh(caller))


@router.delete("/hypervisors/{name}", summary="Take one out", status_code=status.HTTP_204_NO_CONTENT)
def remove_hypervisor(name: Annotated[str, Path(max_length=255)], caller: Configurer, desk: TheDesk) -> None:
    """Restore points of its machines stay."""
    desk.hypervisors.remove(caller, name)


@router.get("/inventory/tree", summary="What hypervisors have, as a tree")
def get_tree(caller: Viewer, desk: TheDesk, by: Literal["folder", "host"] = "folder") -> Tree:
    """As far as the caller reaches it."""
    return desk.hypervisors.tree(caller, by)
