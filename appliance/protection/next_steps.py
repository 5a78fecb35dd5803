"""What only a person can do after a bootstrap: everything that is no file of the old appliance."""

from collections.abc import Callable, Iterator
from pathlib import Path

from appliance.config import Settings
from appliance.protection.archive import named_files
from appliance.protection.backup import Contents


def next_steps(settings: Settings, contents: Contents, *, own: bool, placed: Callable[[Path], Path]) -> Iterator[str]:
    """In the order in which they are best done. ``own``: made from the first repository, not from a copy; ``placed``: where a
    file goes on this machine."""
    yield "see to it that the old appliance is off, and stays off: both would run the same jobs"
    for target in settings.san.target:
        portals = ", ".join(target.portals)
        yield f"array: let this machine reach {target.iqn} at {portals} as initiator {target.initiator}, with its LUNs"
    for host in settings.host:
        if "+ssh" in host.uri:
            yield f"host {host.name}: {host.uri} wants an ssh key of this machine, and its host key known"
    yield from _keys(settings, own=own, placed=placed)
    if not contents.secrets:
        for named in named_files(settings):
            if not placed(named.path).exists():
                yield f"write {named.path} ({named.key}): a repository that is not encrypted holds no secrets"
        yield from _addresses(settings)
    yield from (f"was not protected: {each}" for each in contents.missing)
    yield "'lanfree doctor', then start the service: schedules go on, and what was missed runs once"


def _addresses(settings: Settings) -> Iterator[str]:
    ways = [("[[witness]]", witness.url) for witness in settings.witness]
    ways += [(f"[[notify]] {way.name}", way.url) for way in settings.notify]
    for name, url in ways:
        if url is not None and url.startswith("http"):
            yield f"{name}: compare its url, {url}: a repository that is not encrypted holds no more than the host of it"


def _keys(settings: Settings, *, own: bool, placed: Callable[[Path], Path]) -> Iterator[str]:
    section = settings.repository
    for place, what in ((section.key_file, "key"), (section.passphrase_file, "passphrase")):
        if place is not None and not placed(place).exists():
            yield f"bring the {what} of {section.place} to {place}: it lies in no repository; or 'lanfree key recover'"
    if not own:
        yield f"this was made from a copy: 'lanfree catalog rebuild' lists what {section.place} got since, if it is left"
