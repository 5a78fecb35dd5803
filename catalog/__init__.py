"""An index over the repository that can always be rebuilt from it; beside it what cannot: the audit log, ``jobs``, and who may
sign in (``access``). All SQL of Lanfree lives here; only the workflow engine and the immutability helper have
databases of their own."""
