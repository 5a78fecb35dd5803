"""How the web process faces its callers. The appliance makes this from its configuration file."""

import threading
from dataclasses import dataclass, field

from proxy.units import MiB


@dataclass(frozen=True, slots=True)
class WebSettings:
    """``hosts``: names under which it may be asked for, without port; ``*.example.org`` for all below; ``("*",)`` for any,
    which leaves DNS rebinding to whoever stands in front. ``https``: whether browsers come by TLS: cookies are ``Secure``
    then, and HSTS is said. ``console``: whether pages are served too. ``ending``: set when the process is to end, so that
    streams do.

    ``body``: bytes of a request at most; what people send are policies and names. ``depth``: of nested JSON; the deepest
    document of ours has seven levels. ``requests``: of one caller at once; a console page asks for a dozen things. ``streams``:
    event streams of one caller; a browser tab holds one or two. ``patience``: seconds in which a body has to come, and for
    which a reader of an answer may stand still."""

    hosts: tuple[str, ...] = ("*",)
    https: bool = True
    console: bool = True
    body: int = 1 * MiB
    depth: int = 32
    requests: int = 32
    streams: int = 8
    patience: float = 60.0
    ending: threading.Event = field(default_factory=threading.Event)
