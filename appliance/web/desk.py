"""The API's ports over the appliance's parts."""

from api.desk import Desk
from appliance.web.access import access_of
from appliance.web.audit import WebAudit
from appliance.web.files import WebFiles
from appliance.web.hypervisors import WebHypervisors
from appliance.web.idempotency import WebIdempotency
from appliance.web.insight import CoverageReports, Impacts, NightPlans, ProxyList
from appliance.web.job_runs import StoredRuns
from appliance.web.jobs import StoredJobs
from appliance.web.machines import WebMachines
from appliance.web.mounts import WebMounts
from appliance.web.overviews import Overviews
from appliance.web.points import WebPoints
from appliance.web.repositories import WebRepositories
from appliance.web.restores import WebRestores
from appliance.web.settings import WebSystemSettings
from appliance.web.sights import Sights
from appliance.web.speeds import Speeds
from appliance.web.tasks import WebTasks
from appliance.web.vitals import WebVitals
from appliance.web.work import WebWork
from appliance.wiring import Services


def desk_of(services: Services) -> Desk:
    """All ports. Nothing is connected before it is asked."""
    mounts = WebMounts(services)
    sights, speeds = Sights(services), Speeds()
    return Desk(
        access=access_of(services),
        audit=WebAudit(services),
        idempotency=WebIdempotency(services),
        settings=WebSystemSettings(services),
        files=WebFiles(services, mounts),
        mounts=mounts,
        hypervisors=WebHypervisors(services),
        machines=WebMachines(services),
        points=WebPoints(services),
        tasks=WebTasks(services),
        work=WebWork(services),
        restores=WebRestores(services),
        repositories=WebRepositories(services),
        jobs=StoredJobs(services, sights),
        job_runs=StoredRuns(services, speeds),
        overview=Overviews(services, speeds),
        plan=NightPlans(services, sights),
        coverage=CoverageReports(services),
        impact=Impacts(services),
        proxies=ProxyList(services),
        vitals=WebVitals(services),
    )
