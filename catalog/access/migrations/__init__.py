"""Schema of the job store, in steps of its own: it may be in the catalog's database or in another one."""
