"""Defines the six components as torch modules."""

from ..configs import ModelConfig
from .clip import Clip
from .conditioner import Conditioner
from .denoiser import Denoiser
from .layers import num_vectors
from .t5 import T5
from .vae import VaeDecoder, VaeEncoder

__all__ = ["T5", "Clip", "Conditioner", "Denoiser", "ModelConfig", "VaeDecoder", "VaeEncoder", "num_vectors"]
