"""Defines what a caller gets back, and how it is saved."""
