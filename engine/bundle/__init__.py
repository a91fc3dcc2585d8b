"""A bundle and what it is read from: its manifest, graphs and weights files."""
