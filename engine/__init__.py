"""Reads bundles and builds plans from them, without torch."""
