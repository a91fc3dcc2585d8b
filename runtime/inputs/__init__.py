"""Defines what a caller hands in: requests, prompts, pictures, and how a reference is brought to its size."""
