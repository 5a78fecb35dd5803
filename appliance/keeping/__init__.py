"""What keeps restore points and tells of them, by hand and by jobs.

``pruning``: retention and collection; ``copying``: copies between sites; ``verifying``; ``covering``: coverage;
``maintenance``: the other repositories, how restore points stand, audits.
"""
