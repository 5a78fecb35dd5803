"""Opens restore points for files: export as NBD, a libguestfs appliance a session, walk and extract."""
