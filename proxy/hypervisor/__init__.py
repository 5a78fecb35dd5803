"""Hypervisor adapters: ``kvm`` (libvirt), ``memory`` (the shipped fake)."""
