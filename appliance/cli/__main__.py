"""``python -m appliance.cli`` is ``lanfree``."""

from appliance.cli import main

main()
