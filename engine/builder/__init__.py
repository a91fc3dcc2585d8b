"""Builds plans: from a graph and its weights to a checked plan in the store."""
