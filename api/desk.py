"""What the API needs of the appliance: one port a resource, given to ``create_app`` by whoever runs it.

Ports speak in the API's own schemas (``api.schemas``) and raise the errors of ``proxy.errors``. They are called from many
threads at once. What a caller may do was decided before (``api.deps``); what a caller may *see* of lists is the port's to
leave out, by the ``Caller`` that it is given.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Desk:
    """All of them."""
