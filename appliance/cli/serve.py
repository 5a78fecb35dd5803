"""``lanfree serve``: what runs jobs by their schedules, on this proxy, with API and console beside it."""

from appliance.cli.app import CONTEXT, app


@app.command()
def serve() -> None:
    """Begin jobs by their schedules and work on them, until told to end (SIGTERM: cleanly; once more: at once).

    API and console ('lanfree web') run beside it unless [web] says no. Any number of proxies may serve over one [database];
    without one this is the only one. Logs go to stderr. A changed configuration file is taken when no task runs here.
    """
    from appliance.serving import service  # noqa: PLC0415  # brings the engine
    from appliance.serving.following import Following  # noqa: PLC0415
    from appliance.telling import logs, metrics  # noqa: PLC0415
    from appliance.telling.lookout import lookout  # noqa: PLC0415
    from appliance.web.supervise import Supervised  # noqa: PLC0415
    from appliance.wiring import Services  # noqa: PLC0415

    following = Following(CONTEXT.settings())
    logs.set_up(following.settings.log)
    CONTEXT.engaged = CONTEXT.logs = True
    try:
        with Supervised(following.settings) as console:
            while True:
                with Services(following.settings, CONTEXT.cancelled) as services:
                    logs.set_up(services.settings.log)
                    with services.telling.started(), lookout(services), metrics.serving(services, services.closed):
                        service.serve(services, following)
                if CONTEXT.cancelled.is_set() or not following.take():
                    break
                console.configured(following.settings)
    finally:
        CONTEXT.engaged = CONTEXT.logs = False
