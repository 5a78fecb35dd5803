"""REST API and web console.

::

    browser ── console pages (ui) ──┐ in process, with the browser's own session
    lanfree --server ── client ─────┼──> /api/v1 ── gate (auth) ── routes ──> Desk of ports ──> the appliance
    other programs ─────────────────┘        who asks, what may they       desk, ports: implemented in appliance/web

``app`` puts it together; a resource is a module of the same name in ``schemas`` (what goes over the wire), ``ports`` (what is
asked of the appliance) and ``routes`` (parse, call one function, map). Each route names the one permission that it needs
(``deps.requires``), unless it is for all who are signed in or for anybody (``app.PUBLIC``), and ``Caller.sees`` says which
machines. Refusals are errors of ``proxy.errors`` or ``refusals``; only ``errors`` knows numbers of HTTP. Work that takes long
is a task or a job run: a route begins it, its events tell of it.
"""
