"""Fused operators left out of a session's kernels run their bodies, beside others that have kernels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from fused_models import Sizes, arrays, attributes, model

from kontext_trt.engine.components import Precision
from kontext_trt.runtime.operators import fused
from kontext_trt.runtime.operators.catalogue import DEFINITIONS, OPERATORS
from kontext_trt.runtime.operators.fused import FusedOperators


class Nothing:
    """Stands for the device and its libraries."""

    def __init__(self, *_: object) -> None:
        pass


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KernelDevice", "Kernels"):
        monkeypatch.setattr(fused, name, Nothing)


def session(operators: FusedOperators, name: str) -> ort.InferenceSession:
    definition, options = DEFINITIONS[name], ort.SessionOptions()
    options.log_severity_level = 4
    data = model(definition, Precision.FP32, attributes(definition, Sizes()))
    with operators.opening(options):
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["Gate", "Modulate_to_fp8"])
def test_the_body_runs_of_an_operator_without_kernels(name: str, no_device: None):
    """In every format; what has kernels cannot run here, where there is no CUDA."""
    definition, inputs = DEFINITIONS[name], arrays(DEFINITIONS[name], Sizes())
    operators = FusedOperators(None, None, "sm_90", without={definition.operator.name})  # pyright: ignore[reportArgumentType]
    (found,) = session(operators, name).run(None, inputs)
    (wanted,) = ort.InferenceSession(
        model(definition, Precision.FP32, attributes(definition, Sizes())), providers=["CPUExecutionProvider"]
    ).run(None, inputs)
    assert np.array_equal(found, wanted)
    with pytest.raises(Exception, match=r"INVALID_GRAPH|NOT_IMPLEMENTED"):
        session(FusedOperators(None, None, "sm_90"), name)  # pyright: ignore[reportArgumentType]


def test_bodies_that_know_of_no_ranks_do_not_run_in_a_group(no_device: None):
    group = SimpleNamespace(rank=0, size=2, shares=None)
    with pytest.raises(ValueError, match="Attend, JointHeads must have kernels where ranks share tokens"):
        FusedOperators(None, None, "sm_90", without={"JointHeads", "Attend", "Gate"}, group=group)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shared", [True, False])
def test_sessions_whose_tokens_are_not_shared_get_kernels_without_a_group(
    shared: bool, monkeypatch: pytest.MonkeyPatch
):
    """The autoencoder's attention would otherwise be divided too."""

    class Kept(Nothing):
        def alone(self) -> str:
            return "alone"

    monkeypatch.setattr(fused, "KernelDevice", Nothing)
    monkeypatch.setattr(fused, "Kernels", Kept)
    operators = FusedOperators(None, None, "sm_90")  # pyright: ignore[reportArgumentType]
    with operators.opening(ort.SessionOptions(), shared=shared):
        assert (fused._opening.kernels == "alone") is not shared


def test_a_name_that_is_none_is_refused(no_device: None):
    with pytest.raises(ValueError, match=f"no fused operator is named Gates; they are .*{next(iter(OPERATORS))}"):
        FusedOperators(None, None, "sm_90", without={"Gates"})  # pyright: ignore[reportArgumentType]
