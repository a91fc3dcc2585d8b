"""LoRA files of every family, read without torch: the runtime swaps with what is read here, the export fuses it."""
