"""Jobs: what is to be protected, how and when (``policy``), and what became of it (``store``). No part of what a rebuild makes
again: a database of its own beside SQLite's catalog, tables of its own in PostgreSQL's."""
