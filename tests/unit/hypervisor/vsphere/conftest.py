"""A vCenter that does as it is told, for every test that wants one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.hypervisor.vsphere.connection import Vcenter
from tests.unit.hypervisor.vsphere.scripted_vcenter import ScriptedVcenter, scripted_vcenter


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedVcenter]:
    with scripted_vcenter(tmp_path) as found:
        yield found


@pytest.fixture
def connect(server: ScriptedVcenter) -> Iterator[Callable[..., Vcenter]]:
    """``connect(**settings)``: a connection to ``server``; closed at the end."""
    made: list[Vcenter] = []

    def work(**changed: object) -> Vcenter:
        made.append(Vcenter(server.settings(**changed)))
        return made[-1]

    yield work
    server.scripted.clear()
    for vcenter in made:
        vcenter.close()
