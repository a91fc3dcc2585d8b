"""Holds the version of this package, for whoever writes it down: this module imports nothing."""

__version__ = "0.1.0"
