"""Asks the machine: files, locks, memory, GPUs, processes; nothing here knows what a bundle or a plan is."""
