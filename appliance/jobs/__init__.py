"""What jobs decide: when they begin and may run, who comes when, what is due, what is uncovered. Pure functions of values: no
store, no hypervisor, no clock of their own."""
