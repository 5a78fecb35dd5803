"""Schema of the audit log, in steps of its own: it may be in the catalog's database or in another one."""
