"""Rows of ``lanfree doctor`` that need adapters: does the repository open, does each configured host answer, does each target
show us LUNs?"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from appliance import databases, probes, storage
from appliance.config import Host, Repository, Settings, Target
from appliance.doctor import Check
from appliance.reach import why_not_there
from appliance.web.doctor import checks as web
from appliance.wiring import Services, san_target
from proxy.transport.san import SanFabric
from proxy.units import format_size

# Seconds. Schedules and windows are looked at by each proxy's own clock; who is alive is decided by the database's.
CLOCKS_DIFFER = 5.0


def configured(settings: Settings | None) -> Sequence[Check]:
    """A row for each repository, each host and each SAN target."""
    if settings is None:
        return ()
    sections = [("repository", settings.repository), *((f"copy.{c.name}", c) for c in settings.copy_to)]
    repositories = [
        Check(
            name, f"'lanfree init' makes it; otherwise bring {section.place} and its key back", partial(_opens, section)
        )
        for name, section in sections
    ]
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
    vcenters = [
        Check(
            f"vcenter.{vcenter.name}",
            "give the user the role that proxy/hypervisor/vsphere/privileges.py lists; check address, password and certificate",
            partial(_vcenter, settings, vcenter.name),
        )
        for vcenter in settings.vcenter
    ]
    vddk = [
        Check(
            f"vddk.{vcenter.name}",
            "install nbdkit's vddk plugin, and unpack VDDK to the directory of vddk_library; or take that key away",
            partial(_vddk, settings, vcenter.name),
        )
        for vcenter in settings.vcenter
        if vcenter.vddk_library is not None
    ]
    return (*_databases(settings), *repositories, *hosts, *targets, *vcenters, *vddk, *web(settings))


def _databases(settings: Settings) -> Sequence[Check]:
    file = settings.database.password_file
    if settings.database.url is None:
        return ()
    remedy = (
        "check that the server runs and takes this proxy's user and password: psql; OPERATING.md says how it is set up"
    )
    server = Check("database", remedy, partial(_database, settings))
    if file is None:
        return (server,)
    return (Check(f"secret.{file}", f"chmod 0600 {file}", partial(probes.secret_file, file)), server)


def _database(settings: Settings) -> probes.Finding:
    from catalog.server import look  # noqa: PLC0415  # SQLAlchemy takes longer to load than most commands take

    found = look(databases.catalog_url(settings), databases.password(settings))
    behind = (found.moment - datetime.now(UTC)).total_seconds()
    doubts = found.doubts
    if abs(behind) > CLOCKS_DIFFER:
        doubts += (f"its clock and ours differ by {abs(behind):.0f} s",)
    told = f"PostgreSQL {found.version} answers after {found.seconds * 1000:.0f} ms"
    if found.problems:
        return probes.fail("; ".join((told, *found.problems)))
    return probes.warn("; ".join((told, *doubts))) if doubts else probes.ok(told)


def _opens(section: Repository) -> probes.Finding:
    storage.try_out(section)
    with storage.opened(section, cache=None) as repository:
        known = repository.settings
    sealed = "encrypted" if known.sealed else "NOT encrypted"
    kept = f", immutable for {section.immutable_days} days" if section.immutable_days else ""
    told = f"{section.place} opens, {sealed}, chunks of {format_size(known.chunk_size)}{kept}"
    return probes.ok(told)


def _host(settings: Settings, host: Host) -> probes.Finding:
    with Services(settings) as services:
        site = services.site((host,))
        try:
            machines = site.machines()
        finally:
            site.close()
    return probes.ok(f"answers, {len(machines)} machines")


def _vcenter(settings: Settings, name: str) -> probes.Finding:
    from proxy.hypervisor.vsphere import privileges  # noqa: PLC0415  # see Services.vcenters

    with Services(settings) as services:
        if services.vcenters is None:
            return probes.fail("is not configured any more")
        site = services.vcenters.sites[name]
        machines = site.machines()
        lacking = [verdict for verdict in privileges.check(site.vcenter) if not verdict.granted]
    told = f"answers, {len(machines)} machines"
    if not lacking:
        return probes.ok(f"{told}, all privileges")
    told += f"; missing: {'; '.join(map(str, lacking))}"
    needed = any(verdict.privilege.need is privileges.Need.BACKUP for verdict in lacking)
    return probes.fail(told) if needed else probes.warn(f"{told} (backups do without)")


def _vddk(settings: Settings, name: str) -> probes.Finding:
    from appliance.vsphere import vddk_settings  # noqa: PLC0415  # see Services.vcenters
    from proxy.transport import vddk  # noqa: PLC0415

    with Services(settings) as services:
        if services.vcenters is None:
            return probes.fail("is not configured any more")
        section = next(each for each in settings.vcenter if each.name == name)
        found = vddk.probe(vddk_settings(section, services.vcenters.sites[name]))
    return probes.ok(f"VDDK from {found.library}, plugin {found.version}")


def _shared(directory: Path) -> probes.Finding:
    why = why_not_there(directory)
    return probes.fail(f"{directory} {why}") if why else probes.ok(f"{directory} is there")


def _target(target: Target) -> probes.Finding:
    made = san_target(target)
    units = SanFabric([made]).units(made)
    return probes.ok(f"shows {len(units)} LUNs") if units else probes.fail("the login works, but it shows no LUN")
