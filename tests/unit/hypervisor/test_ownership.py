import pytest

from proxy.hypervisor.kvm.ownership import Ownership, is_rolling, new_rolling_path, overlay_path, run_in
from proxy.hypervisor.kvm.settings import KvmHost

H1 = KvmHost("h1", "qemu:///system", "/var/lib/overlays/")
H2 = KvmHost("h2", "qemu:///system", "/srv//overlays")
OWNED = Ownership.of([H1, H2])


@pytest.mark.parametrize("host", [H1, H2])
@pytest.mark.parametrize("run", ["run-1", "20261122-0001-5.a_b", "a"])
def test_the_run_is_read_back_from_the_overlays_path(run, host):
    path = overlay_path(host, run, "vda")
    assert path in (f"/var/lib/overlays/lanfree-{run}-vda.qcow2", f"/srv/overlays/lanfree-{run}-vda.qcow2")
    assert OWNED.run_of(path) == run and OWNED.owns(path)


@pytest.mark.parametrize("run", ["run-1", "20261122-0001-5.a_b", "a", "a.rolling", "x-vda.rolling"])
def test_a_rolling_overlay_says_so_in_its_name_and_no_name_comes_twice(run):
    path, other = new_rolling_path(H1, run, "vda"), new_rolling_path(H1, run, "vda")
    assert path != other
    assert OWNED.run_of(path) == run and OWNED.rolls(path) and is_rolling(path.rpartition("/")[2])
    assert not OWNED.rolls(overlay_path(H1, run, "vda"))
    assert not OWNED.rolls(path.replace("/var/lib/overlays", "/images"))


@pytest.mark.parametrize(
    "path",
    [
        "/var/lib/overlays/other.qcow2",
        "/var/lib/overlays/lanfree-a-vda.rolling.12345.qcow2",
        "/var/lib/overlays/lanfree-a-vda.rolling.qcow2",
        "/var/lib/overlays/lanfree-notes.txt",
        "/var/lib/overlays/my-lanfree-run-vda.qcow2",
        "/var/lib/overlays/lanfree-vda.qcow2",
        "/var/lib/overlays/lanfree-a b-vda.qcow2",
        "/var/lib/overlays/lanfree-a-vda.qcow2/x",
        "/var/lib/overlays/more/lanfree-web1-vda.qcow2",
        "/var/lib/lanfree-web1-vda.qcow2",
        "/images/lanfree-web1-vda.qcow2",
        "/lanfree-web1-vda.qcow2",
        "lanfree-web1-vda.qcow2",
        "",
    ],
)
def test_what_has_another_name_or_lies_elsewhere_is_not_ours(path):
    assert OWNED.run_of(path) is None and not OWNED.owns(path)


def test_in_an_overlay_directory_the_name_tells_the_run():
    assert (run_in("lanfree-run-1-vda.qcow2"), run_in("lanfree-notes.txt")) == ("run-1", None)
