"""The web console: pages of NiceGUI on the same application. It is a client of the API like any other: what a page may show is
decided where routes decide it, by the session of whoever looks."""

from api.ui.mounting import mount

__all__ = ["mount"]
