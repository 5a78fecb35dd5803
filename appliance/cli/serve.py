"""``lanfree serve``: what runs jobs by their schedules, on this proxy."""

from appliance.cli.app import CONTEXT, app


@app.command()
def serve() -> None:
    """Begin jobs by their schedules and work on them, until told to end (SIGTERM: cleanly; once more: at once).

    Any number of proxies may serve over one [database]; without one this is the only one. Logs go to stderr.
    """
    from appliance.serving import service  # noqa: PLC0415  # brings the engine
    from appliance.telling import logs, metrics  # noqa: PLC0415
    from appliance.telling.lookout import lookout  # noqa: PLC0415

    with CONTEXT.services() as services:
        logs.set_up(services.settings.log)
        CONTEXT.engaged = CONTEXT.logs = True
        try:
            with services.telling.started(), lookout(services), metrics.serving(services, services.closed):
                service.serve(services)
        finally:
            CONTEXT.engaged = CONTEXT.logs = False
