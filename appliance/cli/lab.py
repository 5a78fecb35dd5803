"""``lanfree lab`` and ``lanfree demo``."""
