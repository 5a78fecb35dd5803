"""Rows of ``lanfree doctor`` that need adapters: does each configured host answer, does each target show us LUNs?"""

from collections.abc import Sequence
from functools import partial

from appliance import probes
from appliance.config import Host, Settings, Target
from appliance.doctor import Check
from appliance.wiring import Services, san_target
from proxy.transport.san import SanFabric


def configured(settings: Settings | None) -> Sequence[Check]:
    """A row for each host and each SAN target."""
    if settings is None:
        return ()
    hosts = [
        Check(
            f"host.{host.name}",
            f"virsh -c '{host.uri}' list, on this machine, must work: start libvirtd there, or correct the URI",
            partial(_host, settings, host),
        )
        for host in settings.host
    ]
    targets = [
        Check(
            f"san.{target.iqn}",
            "map LUNs to this proxy's initiator on the array, and check portals and CHAP of the [[san.target]]",
            partial(_target, target),
        )
        for target in settings.san.target
    ]
    return (*hosts, *targets)


def _host(settings: Settings, host: Host) -> probes.Finding:
    with Services(settings) as services:
        site = services.site((host,))
        try:
            machines = site.machines()
        finally:
            site.close()
    return probes.ok(f"answers, {len(machines)} machines")


def _target(target: Target) -> probes.Finding:
    made = san_target(target)
    units = SanFabric([made]).units(made)
    return probes.ok(f"shows {len(units)} LUNs") if units else probes.fail("the login works, but it shows no LUN")
