"""Holds everything that happens on a CUDA device: memory, streams, graphs, engines. cuda-python is imported on use."""
