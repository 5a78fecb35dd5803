"""As ``console_process``, on the estate.

python -m tests.integration.web.seeded_process CONFIGURATION SITE
"""

import signal
import sys
from pathlib import Path

from appliance.web import server
from tests.integration.web.seeded import large_file_system, services_of


def main() -> None:
    configuration, site = map(Path, sys.argv[1:])
    with services_of(configuration, site) as services:
        large_file_system(services.settings.repository.path)
        signal.signal(signal.SIGTERM, lambda *_: services.cancelled.set())
        server.run(services)


if __name__ == "__main__":
    main()
