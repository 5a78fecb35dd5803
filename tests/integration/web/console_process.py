"""The console as a process of its own: what ``lanfree web`` runs, on a directory site.

python -m tests.integration.web.console_process CONFIGURATION SITE
"""

import signal
import sys
from pathlib import Path

from appliance.web import server
from tests.integration.serving.directory_site import DirectorySite
from tests.integration.serving.proxy_process import services_on


def main() -> None:
    configuration, site = map(Path, sys.argv[1:])
    with services_on(configuration, DirectorySite(site)) as services:
        signal.signal(signal.SIGTERM, lambda *_: services.cancelled.set())
        server.run(services)


if __name__ == "__main__":
    main()
