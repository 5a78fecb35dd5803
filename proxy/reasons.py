"""Why something is as it is: of every decision that the software takes, for machines and for people."""

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """Every decision that the software takes has one of these, stored with the restore point and shown."""

    # why everything was read
    FIRST_BACKUP = "first-backup"
    FULL_REQUESTED = "full-requested"
    NO_TRACKING = "no-tracking-for-format"
    TRACKING_LOST = "change-tracking-lost"
    TRACKING_INCONSISTENT = "change-tracking-inconsistent"
    TRACKING_LIED = "change-tracking-lied"
    TRACKING_NOT_READABLE = "change-tracking-not-readable"
    DISK_RESIZED = "disk-resized"
    DISK_NEW = "disk-new"
    PARENT_DAMAGED = "parent-damaged"
    DISK_MOVED = "disk-moved"
    TRANSPORT_WITHOUT_CHANGES = "transport-without-changes"
    # why only what changed was read
    CHANGES_FROM_BITMAP = "changes-from-bitmap"
    CHANGES_FROM_OVERLAY = "changes-from-overlay"
    CHANGES_FROM_HYPERVISOR = "changes-from-hypervisor"
    # what the change-tracking audit says of that
    CHANGES_AUDITED = "changes-audited"
    # why this consistency
    QUIESCED_HOOKS_CONFIRMED = "quiesced-hooks-confirmed"
    QUIESCED_NO_HOOKS = "quiesced-no-hooks"
    QUIESCED_HOOK_FAILED = "quiesced-hook-failed"
    QUIESCED_UNCONFIRMED = "quiesced-unconfirmed"
    QUIESCE_NOT_ASKED = "quiesce-not-asked"
    QUIESCE_NO_AGENT = "quiesce-no-agent"
    QUIESCE_FAILED = "quiesce-failed"
    QUIESCE_TIMEOUT = "quiesce-timeout"
    MACHINE_OFF_CLEAN = "machine-off-clean"
    MACHINE_OFF = "machine-off"
    MACHINE_PAUSED = "machine-paused"
    MACHINE_SUSPENDED = "machine-suspended"
    # why this transport
    TRANSPORT_PREFERRED = "transport-preferred"
    TRANSPORT_FALLBACK = "transport-fallback"
    # why a disk is not in the restore point
    DISK_EXCLUDED = "disk-excluded"
    DISK_EMPTY_DRIVE = "disk-empty-drive"
    DISK_READ_ONLY = "disk-read-only"
    DISK_SHARED = "disk-shared"
    DISK_INDEPENDENT = "disk-independent"
    DISK_PASSTHROUGH = "disk-pass-through"
    DISK_UNSUPPORTED = "disk-unsupported-format"
    # what was mended or noticed on the way
    TRACKING_REPAIRED = "change-tracking-repaired"
    TRACKING_ENABLED = "change-tracking-enabled"
    TRACKING_OFF = "change-tracking-off"
    RELOCATION_NOT_BLOCKED = "relocation-not-blocked"
    CONSOLIDATED = "disks-consolidated"
    LEFTOVER_REMOVED = "leftover-removed"
    SWEEP_INCOMPLETE = "sweep-incomplete"
    MIGRATED = "machine-migrated"
    OVERLAY_NOT_SHARED = "overlay-not-shared"
    RESUMED = "resumed-after-crash"
    COPIED = "copied-from-repository"
    PULLED = "pulled-from-repository"
    # why a restore wrote only a part, or everything though only a part was asked for
    DIFFERENCES_FROM_TARGET = "differences-from-target"
    TARGET_NOT_COMPARABLE = "target-not-comparable"
    # who reads a guest's file systems
    FILES_READ_DIRECTLY = "files-read-directly"
    FILES_READ_BY_APPLIANCE = "files-read-by-appliance"
    # how much of a restore point's files had to be listed again
    INDEX_FULL = "index-full"
    INDEX_INCREMENTAL = "index-incremental"
    INDEX_CARRIED = "index-carried"
    # what the image itself says of the consistency that was claimed
    QUIESCED_BUT_DIRTY = "quiesced-but-dirty"
    # why a job did what it did
    MADE_BY_JOB = "made-by-job"
    MADE_BY_JOB_ID = "made-by-job-id"
    WINDOW_CLOSED = "window-closed"
    BLACKOUT = "blackout"
    SCHEDULE_MISSED = "schedule-missed"
    NOT_PLANNED_IN_WINDOW = "not-planned-in-window"
    ACTIVE_FULL_DUE = "active-full-due"
    LATENCY_HOLD = "latency-hold"
    LATENCY_SLOW = "latency-slow"
    PREVIOUS_RUN_UNDER_WAY = "previous-run-under-way"
    STOPPED_BY_PERSON = "stopped-by-person"
    NOT_BEGUN_IN_TIME = "not-begun-in-time"
    ASKED_FOR = "asked-for"
    RETRIED = "retried"
    TAKEN_OVER = "taken-over"
    HOOK_FAILED = "hook-failed"
    HOSTS_SILENT = "hosts-silent"
    NOTHING_SELECTED = "nothing-selected"
    # why a restore point is of no machine
    SELF_PROTECTION = "self-protection"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is as it is: a code for machines, and a detail for people (may be empty, never a secret)."""

    code: ReasonCode
    detail: str = ""
