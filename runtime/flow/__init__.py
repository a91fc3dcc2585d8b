"""Defines the flow: the stages of a request, the tensors they work on, the formulas they start from, and the loop."""
