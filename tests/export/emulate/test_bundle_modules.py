"""Modules over a bundle's own files: what they keep open, and what writing to them changes."""

from __future__ import annotations

import pytest
import torch
from few_descriptors import num_descriptors
from torch import nn

from kontext_trt import Bundle
from kontext_trt.export.emulate.bundle_modules import BundleGraph, load_module, read_config


def load(bundle: Bundle, component: str) -> nn.Module:
    return load_module(BundleGraph.read(bundle, component), read_config(bundle))


@pytest.mark.usefixtures("without_looking_for_cycles")
@pytest.mark.parametrize("component", ["clip", "denoiser"])
def test_a_module_holds_one_descriptor_per_file_whatever_the_number_of_its_tensors(bundle: Bundle, component: str):
    """A process may have 1,024 as a rule, and FLUX.1's denoiser alone has 780 tensors."""
    before = num_descriptors()
    module = load(bundle, component)
    assert len(bundle.graph(component).weights) == 1
    assert len(list(module.parameters())) > 30
    assert num_descriptors() == before + 1
    del module
    assert num_descriptors() == before


def test_writing_to_a_module_changes_neither_the_file_nor_another_module(bundle: Bundle):
    file = bundle.path / bundle.graph("clip").weights[0]
    before = file.read_bytes()
    one, other = (dict(load(bundle, "clip").named_parameters()) for _ in range(2))
    name = next(iter(one))
    kept = other[name].clone()
    with torch.no_grad():
        one[name].fill_(7)
    assert torch.equal(other[name], kept)
    assert not torch.equal(one[name], kept)
    assert file.read_bytes() == before
