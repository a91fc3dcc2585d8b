"""Reads LoRA files of every family without torch: the runtime swaps with what is read, the export fuses it."""
