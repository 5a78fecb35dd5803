"""Which restore points are kept, and how the space of what is not comes back. Read ``collect.py`` first."""
