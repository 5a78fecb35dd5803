"""Which fabrics this proxy reaches: real TCP listeners on loopback, a login that can refuse."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import Target
from appliance.reach import FRESH_SECONDS, LOGIN_AGAIN_SECONDS, Reach
from proxy.errors import TransportError


@pytest.fixture
def portal() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dead() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


class World:
    """A clock that a test turns, and a target that takes or refuses logins."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.logins: list[str] = []
        self.refuses = ""

    def login(self, target: Target) -> None:
        self.logins.append(target.iqn)
        if self.refuses:
            raise TransportError(self.refuses)

    def reach(self, *targets: Target, directories: tuple[Path, ...] = ()) -> Reach:
        return Reach(targets, directories, self.login, lambda: self.now)


def test_a_target_is_reached_over_any_of_its_portals(portal: str, dead: str) -> None:
    world = World()
    reach = world.reach(
        Target(iqn="iqn.a", portals=(dead, portal)),
        Target(iqn="iqn.b", portals=(dead,)),
        Target(iqn="iqn.c", portals=(portal,), access="restore"),
    )
    found = {path.name: path for path in reach.paths()}
    assert set(found) == {"iqn.a", "iqn.b"}, "restore targets are no way to read"
    assert found["iqn.a"].reached
    assert dead in found["iqn.b"].why
    assert world.logins == ["iqn.a"]


def test_it_is_looked_at_anew_once_a_minute_and_logged_in_to_once(portal: str) -> None:
    world = World()
    reach = world.reach(Target(iqn="iqn.a", portals=(portal,)))
    assert reach.paths() is reach.paths()
    first = reach.paths()
    world.now += FRESH_SECONDS
    assert reach.paths() is not first
    assert world.logins == ["iqn.a"]


def test_a_target_that_refuses_the_login_is_not_reached_and_not_asked_each_minute(portal: str) -> None:
    world = World()
    world.refuses = "initiator not mapped"
    reach = world.reach(Target(iqn="iqn.a", portals=(portal,)))
    assert [path.why for path in reach.paths()] == ["initiator not mapped"]
    world.refuses = ""
    world.now += FRESH_SECONDS
    assert [path.why for path in reach.paths()] == ["initiator not mapped"]
    assert len(world.logins) == 1
    world.now += LOGIN_AGAIN_SECONDS
    assert [path.reached for path in reach.paths()] == [True]


def test_a_fabric_that_went_and_came_back_is_logged_in_to_again() -> None:
    world = World()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        reach = world.reach(Target(iqn="iqn.a", portals=(f"127.0.0.1:{address[1]}",)))
        assert reach.paths()[0].reached
    world.now += FRESH_SECONDS
    assert not reach.paths()[0].reached
    with socket.create_server(address):
        world.now += FRESH_SECONDS
        assert reach.paths()[0].reached
    assert world.logins == ["iqn.a", "iqn.a"]


def test_a_shared_directory_is_reached_when_it_is_mounted(tmp_path: Path) -> None:
    mounted, empty = tmp_path / "mounted", tmp_path / "empty"
    mounted.mkdir()
    empty.mkdir()
    (mounted / "a.img").touch()
    reach = World().reach(directories=(mounted, empty, tmp_path / "none"))
    assert [path.reached for path in reach.paths()] == [True, False, False]
    assert reach.paths()[1].why == "is empty: not mounted?"
