"""Hypervisor adapters: ``kvm`` (libvirt), ``vsphere`` (pyVmomi), ``memory`` (the shipped fake); ``several`` sites as one."""
