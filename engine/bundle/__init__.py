"""Reads a bundle and what it is made of: its manifest, graphs and weights files."""
