"""Runs requests on a bundle: what callers hand in and get back, the flow between the two, and who computes it."""
