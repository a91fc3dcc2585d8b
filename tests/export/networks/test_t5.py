"""T5's relative positions: transformers' buckets, from a table that a graph folds without a warning."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from traced_graphs import Trace
from transformers.models.t5.modeling_t5 import T5Attention

from kontext_trt.engine.components import COMPONENTS, Precision
from kontext_trt.export.graphs.trace import TraceOptions, trace
from kontext_trt.export.networks.t5 import position_bucket
from kontext_trt.export.tiny import tiny_config

SHORT = 24
"""Tokens of a model so small that constant folding reckons even tables by both positions."""


@pytest.mark.parametrize("length", [1, 2, 7, SHORT, 77, 512, 1024])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(8, 20), (32, 128), (64, 256)])
def test_buckets_are_transformers(length: int, num_buckets: int, max_distance: int):
    positions = torch.arange(length)
    relative = positions[None] - positions[:, None]
    options = {"num_buckets": num_buckets, "max_distance": max_distance}
    expected = T5Attention._relative_position_bucket(relative, **options)
    found = position_bucket(relative, **options)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


def test_folding_computes_nothing_that_is_no_number(caplog: pytest.LogCaptureFixture):
    """A warning is an error here, which the optimizer logs, and leaves the node; what is folded is gone."""
    config = tiny_config()
    short = replace(config, t5=replace(config.t5, length=SHORT, num_layers=1))
    with caplog.at_level(logging.WARNING):
        model = trace(COMPONENTS["t5"], short, TraceOptions(precision=Precision.FP32))
    assert [record.message for record in caplog.records] == []
    operators = {node.op_type for node in model.graph}
    assert "Gather" in operators
    assert not {"Log", "Where", "Abs"} & operators


def test_at_full_length_only_the_table_is_a_constant_of_its_own(traced: Trace):
    """1023 entries; the look-up by both positions is left to whoever runs the graph."""
    model = traced(COMPONENTS["t5"], tiny_config(), TraceOptions(precision=Precision.FP32))
    assert not {"Log", "Where", "Abs"} & {node.op_type for node in model.graph}
    shapes = [tuple(value.shape or ()) for value in model.graph.initializers.values() if value.const_value is not None]
    assert sorted(shapes) == [(512, 512), (1023, 1)]
