"""What serves: jobs begin, tasks are worked on, runs survive whatever happens to their process.

::

    service    one look a second: scheduler (what begins), worker (what is claimed), what dead processes left
    phases     a job run from hooks to hooks            performing   one task; both are steps of durable workflows
    engine     durable execution (DBOS)                 liveness, heartbeats   which processes live, and who takes over
    watching   the hosts' counters: places closed and slowed (pacing) for their guests' sake, what each run cost
    controls   what can be done to a run under way      closures     what is closed for a while; hooks: a job's own programs
"""
