"""Wires and runs it all: configuration, workflows, command line, the process of API and console (``web``), doctor, the built-in
lab. Names the adapters."""
