"""Processes, files, memory, versions: what the program stands on."""
