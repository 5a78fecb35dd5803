"""Whether everything is still there and as it was: verification, repair, audit, and what the repository holds."""
