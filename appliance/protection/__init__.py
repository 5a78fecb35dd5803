"""The appliance protects itself: ``backup.py`` (read it first) makes restore points of its own state, ``bootstrap.py`` makes an
appliance of one of them."""
