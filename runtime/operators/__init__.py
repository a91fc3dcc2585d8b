"""Runs operators of our own in ONNX Runtime: how they are given to it, and how their kernels are compiled."""
