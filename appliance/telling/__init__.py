"""Telling people: what became of a job run, and what went wrong meanwhile, by mail, chat, webhook, syslog, metrics, logs and
as a report that is a single HTML file.

Nothing here ever fails a run: ``telling.Telling`` only writes messages down, threads of its own deliver them, and what could
not be told is tried again for a bounded time, then noted.
"""
