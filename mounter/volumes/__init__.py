"""What volumes say of themselves, from a few of their bytes: how they were left, and where the guest mounts them."""
