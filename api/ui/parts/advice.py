"""What to do about problems of the API, in the console's own words where the API's hint speaks of the command line."""

from collections.abc import Mapping

_OVERWRITE = "Choose an empty place; if what is there may go, tick “What the places hold now may be overwritten”."
_LIST_POINTS = "“Restore points” lists those that there are; retention or somebody may have deleted this one."
_LIST_MACHINES = "“Machines” lists those that are known; look at the hypervisors again if it is new."
_DOCTOR = "“Doctor” says what is missing."

_HERE: Mapping[tuple[str, str], str] = {
    ("machine-not-found", "lanfree vm list"): _LIST_MACHINES,
    ("no-such-machine", "lanfree vm list"): _LIST_MACHINES,
    ("run-failed", "lanfree vm list"): "The machine's page says why each of its disks cannot be backed up.",
    ("quiesce-failed", "--quiesce"): (
        "Start the guest's agent (qemu-guest-agent, VMware Tools), or change “Quiesce the guest” in the job's form."
    ),
    ("restore-point-not-found", "lanfree points"): _LIST_POINTS,
    ("integrity", "lanfree verify"): (
        "“Verify” on the repository's page finds all damage; restore an older restore point, or mend it from a copy there."
    ),
    ("files-not-indexed", "lanfree files index"): "“Record its files” on the restore point's page does it.",
    ("guest-file-not-found", "lanfree files find"): "“Find files” searches all restore points.",
    ("job-not-found", "lanfree job add"): "“New job” on the page of jobs makes one.",
    ("job-run-not-found", "lanfree job history"): "The job's page lists its runs.",
    ("job-conflict", "lanfree job show"): "Load the job's page again, and make the change anew.",
    ("job-busy", "lanfree job stop"): "Wait for the run to end, or stop it on its page, then try again.",
    ("database-away", "lanfree doctor"): f"Running backups wait for the database. {_DOCTOR}",
    ("tool-failed", "lanfree doctor"): _DOCTOR,
    ("mount-failed", "lanfree doctor"): f"Try once more. {_DOCTOR}",
    ("mount-ended", "lanfree doctor"): f"Open it again. {_DOCTOR}",
    ("not-told", "lanfree notify test"): "“Settings” has a button that tries it again.",
    ("configuration", "lanfree host add"): "“Add KVM host” on the page of hypervisors names one.",
    ("guest-refused", "--overwrite"): "Tick “Replace files that are not the same”, or choose another directory.",
    ("restore-interrupted", "--overwrite"): (
        "Order it again with “What the places hold now may be overwritten”, once you are sure that the places are still the "
        "right ones."
    ),
    ("restore-refused", "--disk KEY"): "Choose a place for at least one disk.",
    ("restore-refused", "say --overwrite as well"): (
        "Tick “What the places hold now may be overwritten”, too; whatever differs from the restore point goes."
    ),
    ("restore-refused", "to go back in place"): (
        "Choose another place. To go back in place, shut that machine down, choose the machine itself, and tick “What the "
        "places hold now may be overwritten”."
    ),
    ("restore-refused", "--without-host"): (
        "Bring it back; if you know it to be dead, tick it under “Hosts that are known to be dead”."
    ),
    ("restore-refused", "--as"): "Shut it down first, or choose “A new machine beside the original”.",
    ("restore-refused", "--unidentified"): (
        "Use world-wide names in that machine's definition; if you know that it does not lie there, tick “Disks that cannot be "
        "told apart are not on these LUNs”."
    ),
    ("restore-refused", "--network '"): "Name another one for it under “Other networks”, or choose a host that has it.",
    ("restore-refused", "--overwrite"): _OVERWRITE,
}
"""By the problem's code and what its hint says of the command line; of several that fit the first one counts."""


def advice(code: str, hint: str) -> str:
    """What to do about a problem with this code; the API's own hint unless that is for somebody at a shell."""
    return next((words for (kind, mark), words in _HERE.items() if kind == code and mark in hint), hint)
