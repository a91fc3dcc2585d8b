"""kontext-trt: FLUX.1 Kontext [dev] on NVIDIA GPUs, from a checkpoint to an edited picture."""

__version__ = "0.1.0"
