"""Settings that change under the parts of a process."""

import threading
from pathlib import Path
from typing import Any

import pytest

from appliance import reconfiguring
from appliance.config import Host, Limits, Settings, State
from appliance.reconfiguring import Former
from appliance.telling.settings import Notify
from appliance.wiring import Services


class _Part:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(source=tmp_path / "lanfree.toml", state=State(directory=tmp_path / "state"))


def _with(settings: Settings, **sections: object) -> Settings:
    return settings.model_copy(update=sections)


def test_only_what_the_change_concerns_is_made_anew(settings: Settings) -> None:
    kvm, telling, catalog = _Part(), object(), object()
    parts: dict[str, object] = {"_kvm": kvm, "hypervisor": object(), "telling": telling, "catalog": catalog}
    former = Former()
    former.replace(parts, settings, _with(settings, limits=Limits(per_host=9)))
    assert set(parts) == {"_kvm", "hypervisor", "telling", "catalog"}
    former.replace(parts, settings, _with(settings, notify=(Notify(name="x", kind="syslog", url="udp://log"),)))
    assert set(parts) == {"_kvm", "hypervisor", "catalog"}
    former.replace(parts, settings, _with(settings, host=(Host(name="h", uri="qemu:///system"),)))
    assert set(parts) == {"catalog"}
    assert not kvm.closed
    former.close()
    assert kvm.closed


def test_parts_that_nobody_asks_any_more_are_let_go_at_the_next_change(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconfiguring, "LATE", -1.0)
    kvm, former = _Part(), Former()
    with_host = _with(settings, host=(Host(name="h", uri="qemu:///system"),))
    former.replace({"_kvm": kvm}, settings, with_host)
    former.replace({}, with_host, settings)
    assert kvm.closed


def test_a_process_asks_the_hypervisors_that_are_configured_now(settings: Settings) -> None:
    with Services(settings) as services:
        first = services.transports
        services.reconfigure(_with(settings, limits=Limits(per_host=9)))
        assert services.transports is first
        assert services.limits.of("host:x") == 9
        services.reconfigure(_with(settings, host=(Host(name="h", uri="qemu:///system"),)))
        assert services.transports is not first
        assert [host.name for host in services.settings.host] == ["h"]


def test_a_part_that_is_being_made_while_settings_change_is_none_of_the_old_ones(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that began before the change must not leave a hypervisor behind that is not configured any more."""
    begun, go = threading.Event(), threading.Event()
    made, names = Services.site, list[str]()

    def slow(services: Services, hosts: tuple[Host, ...]) -> Any:
        names.extend(host.name for host in hosts)
        begun.set()
        assert go.wait(30)
        return made(services, hosts)

    monkeypatch.setattr(Services, "site", slow)
    one = _with(settings, host=(Host(name="one", uri="qemu:///system"),))
    with Services(one) as services:
        asking = threading.Thread(target=lambda: services._kvm)
        asking.start()
        assert begun.wait(30)
        two = _with(settings, host=(Host(name="two", uri="qemu:///system"),))
        changing = threading.Thread(target=services.reconfigure, args=(two,))
        changing.start()
        changing.join(0.2)  # it may be through by then, or wait
        go.set()
        for thread in (asking, changing):
            thread.join(30)
        assert services._kvm is not None
    assert names == ["one", "two"]
