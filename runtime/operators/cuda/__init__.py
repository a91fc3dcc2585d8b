"""Computes fused operators on CUDA devices: kernels of our own, cuBLASLt's products, cuDNN's attention."""
