"""Alembic's scripts: one module a revision in ``versions``. Run by ``catalog.database.upgrade``, never by hand."""
