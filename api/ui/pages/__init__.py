"""The console's pages: a module each, with one function that draws it. The order is that of the navigation."""

from api.auth.roles import Permission
from api.ui.frame import Page
from api.ui.pages import (
    account,
    approvals,
    audit,
    dashboard,
    doctor,
    files_browse,
    files_compare,
    files_find,
    files_lost,
    files_versions,
    hypervisors,
    job,
    job_edit,
    jobs,
    machine,
    machines,
    not_found,
    point,
    points,
    proxies,
    repositories,
    repository,
    restore_files,
    restore_machine,
    run,
    running,
    search,
    settings,
    task,
    users,
)

OVERVIEW = "Overview"
PROTECT = "Protect"
RESTORE = "Restore"
SITE = "Infrastructure"
ADMINISTER = "Administration"

PAGES: tuple[Page, ...] = (
    Page("/", "Dashboard", Permission.VIEW, dashboard.build, OVERVIEW, "dashboard"),
    Page("/running", "Running", Permission.VIEW, running.build, OVERVIEW, "sync"),
    Page("/machines", "Machines", Permission.VIEW, machines.build, PROTECT, "computer"),
    Page("/jobs", "Jobs", Permission.VIEW, jobs.build, PROTECT, "event_repeat"),
    Page(
        "/restore/files",
        "Restore files",
        Permission.BROWSE_FILES,
        restore_files.build,
        RESTORE,
        "drive_file_move_outline",
    ),
    Page("/restore/lost", "I lost a file", Permission.BROWSE_FILES, files_lost.build, RESTORE, "help_center"),
    Page(
        "/restore/machine",
        "Restore a machine",
        Permission.RESTORE_MACHINES,
        restore_files.build_whole,
        RESTORE,
        "settings_backup_restore",
    ),
    Page("/restore-points", "Restore points", Permission.VIEW, points.build, RESTORE, "history"),
    Page("/hypervisors", "Hypervisors", Permission.VIEW, hypervisors.build, SITE, "dns"),
    Page("/repositories", "Repositories", Permission.VIEW, repositories.build, SITE, "inventory_2"),
    Page("/proxies", "Proxies", Permission.VIEW, proxies.build, SITE, "lan"),
    Page("/approvals", "Approvals", Permission.VIEW, approvals.build, ADMINISTER, "how_to_reg"),
    Page("/users", "Users", Permission.MANAGE_ACCESS, users.build, ADMINISTER, "group"),
    Page("/audit", "Access log", Permission.VIEW_AUDIT, audit.build, ADMINISTER, "receipt_long"),
    Page("/settings", "Settings", Permission.VIEW, settings.build, ADMINISTER, "settings"),
    # pages that others lead to; fixed words before parameters
    Page("/search", "Find", Permission.VIEW, search.build),
    Page("/machines/{machine}", "Machine", Permission.VIEW, machine.build, under="/machines"),
    Page("/jobs/new", "New job", Permission.EDIT_JOBS, job_edit.build, under="/jobs"),
    Page("/jobs/{job}/edit", "Edit job", Permission.EDIT_JOBS, job_edit.build, under="/jobs"),
    Page("/jobs/{job}", "Job", Permission.VIEW, job.build, under="/jobs"),
    Page("/runs/{run}", "Job run", Permission.VIEW, run.build, under="/running"),
    Page("/tasks/{task}", "Task", Permission.VIEW, task.build, under="/running"),
    Page("/account", "Your account", Permission.VIEW, account.build),
    Page("/doctor", "Doctor", Permission.CONFIGURE, doctor.build, under="/settings"),
    Page("/repositories/{name}", "Repository", Permission.VIEW, repository.build, under="/repositories"),
    Page("/files", "Find files", Permission.BROWSE_FILES, files_find.build, under="/restore/files"),
    Page("/restore/versions", "Versions", Permission.BROWSE_FILES, files_versions.build, under="/restore/files"),
    Page("/restore/compare", "What changed", Permission.BROWSE_FILES, files_compare.build, under="/restore/files"),
    Page(
        "/restore/machine/{point}",
        "Restore a machine",
        Permission.RESTORE_MACHINES,
        restore_machine.build,
        under="/restore/machine",
    ),
    Page("/restore-points/{point}", "Restore point", Permission.VIEW, point.build, under="/restore-points"),
    Page("/restore-points/{point}/files", "Files", Permission.BROWSE_FILES, files_browse.build, under="/restore/files"),
)

NOT_FOUND = Page("/{rest:path}", "Not found", Permission.VIEW, not_found.build)
"""Whatever else is asked for: after all others."""
