"""Makes the module of a component.

A network is imported when it is made: transformers and diffusers take seconds, and most of what is refused is refused
before any network is needed.
"""

from __future__ import annotations

from torch import nn

from ...engine.components import DENOISER, Operators
from ..configs import ModelConfig


def build_module(
    component: str,
    config: ModelConfig,
    *,
    operators: Operators = Operators.SINGLE,
    prune_last_block: bool = True,
    gives_residual: bool = False,
) -> nn.Module:
    """Return the torch module of a component, with whatever default type and device are set.

    Args:
        component: The component's name.
        config: The configuration of the networks.
        operators: The form of its graph.
        prune_last_block: Whether the denoiser's last block computes target tokens only.
        gives_residual: Whether the denoiser gives what its blocks but the first add.
    """
    if component == DENOISER.name:
        from .denoiser import Denoiser

        options = {"prune_last_block": prune_last_block, "gives_residual": gives_residual}
        return Denoiser(config.transformer, operators=operators, **options).eval()
    return _made(component, config, operators).eval()


def _made(component: str, config: ModelConfig, operators: Operators) -> nn.Module:
    match component:
        case "clip":
            from .clip import Clip

            return Clip(config.clip)
        case "t5":
            from .t5 import T5

            return T5(config.t5)
        case "conditioner":
            from .conditioner import Conditioner

            return Conditioner(config.transformer)
        case "cached_denoiser":
            from .cached_denoiser import CachedDenoiser

            return CachedDenoiser(config.transformer, operators=operators)
        case "vae_encoder":
            from .vae import VaeEncoder

            return VaeEncoder(config.vae, operators=operators)
        case "vae_decoder":
            from .vae import VaeDecoder

            return VaeDecoder(config.vae, operators=operators)
        case _:
            raise ValueError(f"there is no component {component}")
