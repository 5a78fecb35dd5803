"""The configured limits, by kind of key. Pure, and light: ``lanfree status`` asks for no more of the wiring than this."""

import sys

from appliance import config_serving
from catalog.jobs import limits
from catalog.jobs.limits import Limits

_ONE_AT_A_TIME = ("copy", "verify", "prune", "sweep", "inventory", "measure", "protect", "repair", "audit", "rebuild")


def limited(said: config_serving.Limits) -> Limits:
    """How many tasks may hold a key at once."""
    kinds = {
        limits.HOST: said.per_host,
        limits.PLACE: said.per_place,
        limits.FULL: said.full_per_host,
        limits.REPOSITORY: said.per_repository,
        # What keeps a repository in shape: two at once would only do each other's work.
        **dict.fromkeys(_ONE_AT_A_TIME, 1),
    }
    # 0 says "no limit" of a key, too, also where its kind has one.
    keys = {key: number or sys.maxsize for key, number in said.keys.items()}
    return Limits({kind: number for kind, number in kinds.items() if number}, keys)
