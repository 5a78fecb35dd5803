"""The routes of ``/api/v1``, a module a resource: parse, call one function, map the result."""
