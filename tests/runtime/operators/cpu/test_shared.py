"""Which operators exchange, and that each session's kernels exchange with its own group."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest
from fused_models import Sizes, model
from shared_kernels import Values, drawn, whole_body
from thread_ranks import ThreadGroup, as_ranks

from kontext_trt import ExecutorError
from kontext_trt.engine.components import Precision
from kontext_trt.runtime.flow.shares import Shares
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cpu import shared
from kontext_trt.runtime.operators.cpu.shared import SharedOperators
from kontext_trt.runtime.operators.failures import raising_whole

ATTEND = DEFINITIONS["Attend"]
SIZES = Sizes(text=0, image=40, heads=6, width=16)
SHARES = Shares(text=(6, 5), target=(10, 10), reference=(5, 4))


def opened(group: ThreadGroup) -> onnxruntime.InferenceSession:
    attributes = {"num_heads": SIZES.heads}
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    group.shares = SHARES
    with SharedOperators(group, 1).opening(options):
        return onnxruntime.InferenceSession(
            model(ATTEND, Precision.FP32, attributes), options, providers=["CPUExecutionProvider"]
        )


def test_those_exchange_that_need_other_ranks_tokens():
    """All of attention; and keys less their mean, which FP8 has."""
    names = {one.name for one in shared._operators()}
    assert {"Attend", "AttendBesideGelu", "Attend_fp8_attention_to_fp8", "Heads_fp8_to_fp8"} < names
    assert "JointHeads_to_fp8" in names
    assert not {"Heads", "JointHeads", "JointLinear", "Linear", "GateModulate", "Heads_fp8", "Quantize_to_fp8"} & names
    assert names == {name for name, one in DEFINITIONS.items() if one.exchanges}


def test_each_sessions_kernels_exchange_with_its_own_group():
    """Though all of a process are of one domain."""
    values, attributes = drawn(ATTEND, SIZES)
    (whole,) = whole_body(ATTEND, attributes, values)

    def run(group: ThreadGroup) -> np.ndarray:
        rows = slice(0, 21) if group.rank == 0 else slice(21, 40)
        own: Values = {name: np.ascontiguousarray(array[:, rows]) for name, array in values.items()}
        with raising_whole():
            return np.asarray(opened(group).run(None, own)[0])

    results: list[np.ndarray] = []
    groups = [threading.Thread(target=lambda: results.append(np.concatenate(as_ranks(2, run), 1))) for _ in range(2)]
    for one in groups:
        one.start()
    for one in groups:
        one.join()
    assert len(results) == 2
    for found in results:
        np.testing.assert_allclose(found, whole, atol=1e-5)


def test_what_a_kernel_raises_comes_out_whole():
    values, _ = drawn(ATTEND, SIZES)
    (alone,) = as_ranks(1, lambda group: group)
    session = opened(alone)
    alone.shares = Shares(text=(1,), target=(2,), reference=(3,))
    with pytest.raises(ExecutorError, match=r"^attention of 40 tokens"), raising_whole():
        session.run(None, values)


def test_a_session_that_cannot_be_made_leaves_nothing_behind():
    group = as_ranks(4, lambda group: group)[0]
    with pytest.raises(ExecutorError, match=r"^6 heads cannot be divided among 4 devices$"):
        opened(group)
    assert not hasattr(shared._opening, "shared")
