"""The API's ports over the appliance's parts."""

from api.desk import Desk
from appliance.wiring import Services


def desk_of(services: Services) -> Desk:
    """All ports. Nothing is connected before it is asked."""
    del services
    return Desk()
