"""Defines fused operators: ONNX functions that every runtime can run, and kernels for them on CUDA devices."""
