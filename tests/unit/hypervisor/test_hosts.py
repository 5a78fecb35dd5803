import pytest

from proxy.errors import ConfigurationError, HostUnreachable
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.kvm.connection import DomainState
from proxy.hypervisor.kvm.hosts import Hosts, rank
from proxy.model import PowerState
from proxy.state_directory import StateDirectory


def test_a_machine_is_where_it_runs_then_where_it_arrives_then_where_it_was_saved_then_where_it_is_defined():
    states = [
        DomainState(PowerState.OFF),
        DomainState(PowerState.SUSPENDED),
        DomainState(PowerState.PAUSED, incoming=True),
        DomainState(PowerState.PAUSED),
        DomainState(PowerState.RUNNING),
    ]
    assert sorted(states, key=rank) == states[::-1]


def test_hosts_that_answer_and_hosts_that_are_silent_are_told_apart():
    hosts = Hosts([KvmHost("h1", "qemu:///system", "/o"), KvmHost("h2", "qemu:///system", "/o")])

    def question(host):
        if host.name == "h2":
            raise HostUnreachable("h2", "no route")
        return host.name.upper()

    answers, silent = hosts.ask(question)
    assert answers == {"h1": "H1"} and list(silent) == ["h2"] and "no route" in silent["h2"]


def test_when_all_are_silent_all_are_named():
    hosts = Hosts([KvmHost("h1", "qemu:///system", "/o"), KvmHost("h2", "qemu:///system", "/o")])

    def question(host):
        raise HostUnreachable(host.name, "no route")

    with pytest.raises(HostUnreachable, match="h1, h2"):
        hosts.ask(question)


@pytest.mark.parametrize("names", [[], ["h1", "h1"]])
def test_a_site_needs_hosts_with_names_of_their_own(tmp_path, names):
    with pytest.raises(ConfigurationError):
        KvmSite([KvmHost(name, "qemu:///system", "/o") for name in names], state=StateDirectory(tmp_path))
