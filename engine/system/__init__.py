"""The machine: files, locks, memory, GPUs, processes. Nothing here knows what a bundle or a plan is."""
