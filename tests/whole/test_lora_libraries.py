"""Files that peft, diffusers and lycoris write themselves are applied as these libraries merge them, in float64."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lora_files import model_shapes

from kontext_trt.engine.lora.apply import apply_changes
from kontext_trt.engine.lora.changes import Change, Place
from kontext_trt.engine.lora.fit import check_fit
from kontext_trt.engine.lora.read import read_lora

if TYPE_CHECKING:
    from diffusers import FluxKontextPipeline, FluxTransformer2DModel

SHAPES = {Place(part=part, tensor=name): shape for (part, name), shape in model_shapes().items()}
TARGETS = [
    "to_q",
    "to_k",
    "to_out.0",
    "add_v_proj",
    "ff.net.2",
    "proj_mlp",
    "norm1.linear",
    "norm_out.linear",
    "x_embedder",
]
PATTERNS = {"rank_pattern": {"to_q": 2, "x_embedder": 3}, "alpha_pattern": {"ff.net.2": 5, "to_q": 1}}


def ours(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """diffusers' tensors under this project's names: the last norm is two, its scale first."""
    named = {name: values.detach().numpy() for name, values in state.items()}
    for suffix in ("weight", "bias"):
        halves = np.split(named.pop(f"norm_out.linear.{suffix}"), 2)
        named |= {f"norm_out.{half}.{suffix}": values for half, values in zip(("scale", "shift"), halves, strict=True)}
    return named


def check(path: Path, base: FluxTransformer2DModel, merged: Callable[[float], dict[str, torch.Tensor]]) -> None:
    """Every tensor that the library changes is changed by the file alike, and no other, for two scales."""
    read = read_lora(path)
    check_fit(read, SHAPES)
    changes: dict[str, list[Change]] = {}
    for change in read.changes:
        changes.setdefault(change.place.tensor, []).append(change)
    before = ours(base.state_dict())
    for user in (1.0, 0.5):
        wanted = ours(merged(user))
        assert set(wanted) == set(before)
        moved = {name for name in before if np.abs(wanted[name] - before[name]).max() > 1e-5}
        assert moved == set(changes)
        for name, found in changes.items():
            made = apply_changes(before[name].astype(np.float32).copy(), [(found, user)])
            assert np.linalg.norm(made - wanted[name]) < 1e-6 * np.linalg.norm(wanted[name]), (name, user)


def randomize(parameters: Iterator[tuple[str, torch.nn.Parameter]], part: str) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in parameters:
            if part in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter + 0.2 * noise if "magnitude" in name or "dora" in name else 0.2 * noise)


PEFT: dict[str, dict[str, Any]] = {
    "plain": {"lora_alpha": 6},
    "rsLoRA": {"lora_alpha": 6, "use_rslora": True},
    "patterns": {"lora_alpha": 6, **PATTERNS},
    "bias": {"lora_alpha": 6, "lora_bias": True},
    "DoRA": {"lora_alpha": 6, "use_dora": True, "target_modules": ["to_q", "proj_mlp", "norm1.linear"]},
}


@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # peft takes its own biases for misshapen matrices
@pytest.mark.parametrize(
    "kind", ["patterns", *(pytest.param(one, marks=pytest.mark.check) for one in PEFT if one != "patterns")]
)
def test_peft_through_diffusers(kind: str, pipeline: FluxKontextPipeline, tmp_path: Path):
    from peft import LoraConfig, get_peft_model_state_dict

    config = LoraConfig(**{"r": 4, "target_modules": TARGETS, "init_lora_weights": False, **PEFT[kind]})
    model = copy.deepcopy(pipeline.transformer)
    model.add_adapter(config, "default")
    randomize(model.named_parameters(), "lora_")
    type(pipeline).save_lora_weights(
        str(tmp_path),
        transformer_lora_layers=get_peft_model_state_dict(model),
        transformer_lora_adapter_metadata=model.peft_config["default"].to_dict(),
    )
    (path,) = tmp_path.glob("*.safetensors")

    def merged(user: float) -> dict[str, torch.Tensor]:
        double = copy.deepcopy(model).double()
        double.fuse_lora(lora_scale=user)
        double.unload_lora()
        return double.state_dict()

    check(path, pipeline.transformer, merged)


@pytest.mark.check
def test_peft_itself_with_its_configuration_beside(pipeline: FluxKontextPipeline, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, init_lora_weights=False, **PATTERNS)
    model = get_peft_model(copy.deepcopy(pipeline.transformer), config)
    model.save_pretrained(str(tmp_path))

    def merged(user: float) -> dict[str, torch.Tensor]:
        double = copy.deepcopy(model).double()
        for module in double.modules():
            if hasattr(module, "scale_layer"):
                module.scale_layer(user)
        return double.merge_and_unload().state_dict()

    check(tmp_path / "adapter_model.safetensors", pipeline.transformer, merged)


LYCORIS: dict[str, dict[str, Any]] = {
    "LoKr": {"algo": "lokr", "factor": 4},
    "LoKr, both decomposed": {"algo": "lokr", "factor": 8, "decompose_both": True, "linear_dim": 1},
    "LoKr, whole": {"algo": "lokr", "factor": 4, "full_matrix": True},
    "LoKr, rank-stabilized": {"algo": "lokr", "factor": 4, "rs_lora": True},
    "LoKr, DoRA": {"algo": "lokr", "factor": 4, "dora_wd": True},
    "LoHa": {"algo": "loha"},
    "LoHa, with a scalar": {"algo": "loha", "use_scalar": True},
    "full": {"algo": "full"},
    "LoRA": {"algo": "lora"},
    "DoRA": {"algo": "lora", "dora_wd": True},
    "DoRA of inputs": {"algo": "lora", "dora_wd": True, "wd_on_out": False},
}


@pytest.mark.parametrize(
    "kind", ["LoKr, DoRA", *(pytest.param(one, marks=pytest.mark.check) for one in LYCORIS if one != "LoKr, DoRA")]
)
def test_lycoris(kind: str, pipeline: FluxKontextPipeline, tmp_path: Path):
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    from lycoris import LycorisNetwork, create_lycoris

    LycorisNetwork.apply_preset({"target_module": ["FluxTransformerBlock", "FluxSingleTransformerBlock"]})
    options = {"linear_dim": 4, "linear_alpha": 2, **LYCORIS[kind]}
    dim, alpha = options.pop("linear_dim"), options.pop("linear_alpha")

    def made() -> tuple[FluxTransformer2DModel, Any]:
        model = copy.deepcopy(pipeline.transformer)
        network = create_lycoris(model, 1.0, linear_dim=dim, linear_alpha=alpha, **options)
        network.apply_to()
        for name, parameter in network.named_parameters():
            randomize(iter([(name, parameter)]), "")
        return model, network

    _, network = made()
    path = tmp_path / "lycoris.safetensors"
    network.save_weights(str(path), None, None)

    def merged(user: float) -> dict[str, torch.Tensor]:
        """What its layers compute, not what it merges: `merge_to` of LoKr and LoHa takes alpha / rank twice."""
        model, net = made()
        model.double(), net.double().eval()
        state = {name: values.double() for name, values in pipeline.transformer.state_dict().items()}
        dora = "dora_wd" in options
        net.set_multiplier(1.0 if dora else user)
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                bias = module(torch.zeros(1, module.in_features, dtype=torch.float64))
                weight = (module(torch.eye(module.in_features, dtype=torch.float64)) - bias).T
                before = state[f"{name}.weight"]
                state[f"{name}.weight"] = before + user * (weight - before) if dora else weight
                state[f"{name}.bias"] = bias[0]
        return state

    check(path, pipeline.transformer, merged)
