"""What the API needs of the appliance: one port a resource, given to ``create_app`` by whoever runs it.

Ports speak in the API's own schemas (``api.schemas``) and raise the errors of ``proxy.errors``. They are called from many
threads at once. What a caller may do was decided before (``api.deps``); what a caller may *see* of lists is the port's to
leave out, by the ``Caller`` that it is given.
"""

from dataclasses import dataclass

from api.auth.access import Access
from api.ports.audit import AuditLog
from api.ports.files import Files
from api.ports.hypervisors import Hypervisors
from api.ports.idempotency import Idempotency
from api.ports.insight import Coverages, Impacts, Overviews, Plans, ProxyList
from api.ports.job_runs import JobRuns
from api.ports.jobs import Jobs
from api.ports.machines import Machines
from api.ports.mounts import Mounts
from api.ports.points import Points
from api.ports.repositories import Repositories
from api.ports.restores import Restores
from api.ports.settings import SystemSettings
from api.ports.tasks import Tasks, Work
from api.ports.vitals import Vitals


@dataclass(frozen=True, slots=True)
class Desk:
    """All of them."""

    access: Access
    audit: AuditLog
    idempotency: Idempotency
    settings: SystemSettings
    files: Files
    mounts: Mounts
    hypervisors: Hypervisors
    machines: Machines
    points: Points
    tasks: Tasks
    work: Work
    restores: Restores
    repositories: Repositories
    jobs: Jobs
    job_runs: JobRuns
    overview: Overviews
    plan: Plans
    coverage: Coverages
    impact: Impacts
    proxies: ProxyList
    vitals: Vitals
