"""The order of tasks; one file for each thing an operator sees in the UI."""
