"""Measures what the engine costs and what its pictures are worth."""
