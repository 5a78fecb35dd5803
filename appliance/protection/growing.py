"""From one proxy with SQLite to several with PostgreSQL: everything that is in the databases, and what lay in files because no
other proxy needed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance import databases
from appliance.config import Settings
from appliance.protection.restored import place_in
from appliance.wiring import Services
from catalog import portable
from catalog.jobs.store import JobStore
from proxy.errors import ConfigurationError
from proxy.ports import StateStore
from proxy.state_directory import StateDirectory

FOLDERS = ("unlock", "copies", "vsphere", "vsphere/runs", "kvm/runs", "kvm/frozen")
"""Of the site's state: keys of volumes, which repository each ``[[copy_to]]`` is, and what the hosts' drivers have to know
again."""

# A proxy beats every few seconds.
_SILENT = 60.0


@dataclass(frozen=True, slots=True)
class Grown:
    """``rows``: by table, as many there as here; ``kept``: records of the site's state."""

    rows: Mapping[str, int]
    kept: int


def grow(services: Services, target: Settings, *, source: Path | None, busy: bool) -> Grown:
    """Copy to the databases that ``target`` configures, which must be empty. ``source``: directory with SQLite files, in place
    of this appliance's. ``busy``: though a proxy is at work. Raises ``ConfigurationError``, ``CatalogFailed``."""
    here = portable.Place(services.catalog_url, databases.password(services.settings))
    if source is None and not busy:
        with services.jobs.transaction(write=False) as unit:
            living = ", ".join(sorted(proxy.machine for proxy in unit.proxies.living(_SILENT)))
        if living:
            raise ConfigurationError("database copy", f"at work: {living}", hint="stop the service there first")
    there = portable.Place(databases.catalog_url(target), databases.password(target))
    if source is None and there.url == here.url:
        raise ConfigurationError(str(there), "is the database that is copied")
    rows = portable.transfer(place_in(source) if source is not None else here, there)
    # A bootstrap left it there, beside the databases that wait.
    state = StateDirectory(services.settings.state.directory) if source is not None else services.shared
    with JobStore(there.url, there.password) as store:
        kept = 0 if there.in_files else _copied(state, store.shared)
    return Grown(rows, kept)


def _copied(source: StateStore, target: StateStore) -> int:
    count = 0
    for folder in FOLDERS:
        for word in source.names(folder):
            record = source.get(f"{folder}/{word}")
            if record is not None:
                target.put(f"{folder}/{word}", record)
                count += 1
    return count
