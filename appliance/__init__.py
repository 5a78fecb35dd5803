"""Wires and runs it all: configuration, workflows, command line, doctor, the built-in lab. Names the adapters."""
