"""Writes bundles from checkpoints, quantizes them, and runs them in torch."""
