"""What follows each job run, in this order. Whatever goes wrong here is written to the log and changes nothing any more."""

from appliance.serving.phases import AfterRun
from appliance.wiring import Services
from catalog.jobs.values import JobRun
from proxy.errors import LanfreeError, MachineBusy


def protect(services: Services, run: JobRun) -> None:
    """The appliance's own restore point, with the run in it."""
    from appliance.protection.backup import protect as protected  # noqa: PLC0415  # brings what reads all databases

    try:
        problems = protected(services).problems
    except MachineBusy:
        return  # another process is at it, and has this run's end too, or makes the next one
    except LanfreeError as error:
        problems = (error.message,)
    with services.jobs.transaction() as unit:
        for problem in problems:
            unit.runs.note(run.id, f"the appliance itself is not protected: {problem}")


def tell(services: Services, run: JobRun) -> None:
    """Whoever wants to know; the report of the run is kept."""
    from appliance.telling.report import report_of  # noqa: PLC0415  # brings templates

    services.telling.tell(report_of(services.jobs, services.catalog, run.id))


AFTER_RUN: tuple[AfterRun, ...] = (protect, tell)
