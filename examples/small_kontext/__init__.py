"""Trains the small Kontext and makes its checkpoint."""
