"""A restore point as a read-only directory: ``mounted``, ``server`` (in the worker), ``watch``, ``place``, ``layout``."""
