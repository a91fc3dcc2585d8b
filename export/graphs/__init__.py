"""Graphs: traced networks, where their weights lie, and what quantization puts into them."""
