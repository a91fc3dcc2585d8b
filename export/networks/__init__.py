"""Defines the six components as torch modules."""
