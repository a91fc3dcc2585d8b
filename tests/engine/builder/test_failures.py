"""Known causes in plain words, and what is tried next."""

from __future__ import annotations

import pytest

from kontext_trt.engine.builder.failures import Failure, FailureKind, advice, explain, ladder
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.plans.options import BuildOptions
from kontext_trt.engine.sizes import TRAINED_SIZES

# words of TensorRT-RTX 1.7 and TensorRT 8 to 11, as they were seen in builds and in users' reports
SEEN = {
    "Cannot compile for target(s) sm75, because the model contains HW-specific datatypes: b16": FailureKind.NUMBER_TYPE,
    "FP32 GEMM is not supported": FailureKind.NUMBER_TYPE,
    "Assertion failed: legalUINT8: TensorRT does not support UINT8 types for intermediate": FailureKind.NUMBER_TYPE,
    "node_permute: first input has type UInt8 but must have type Float, Half": FailureKind.NUMBER_TYPE,
    "ElementWiseOperation PROD must have same input types. But they are of types Float": FailureKind.NUMBER_TYPE,
    "CHECK(composite_op->is_decomposable()) failed. Attention operation was not supported by a dedicated kernel":
        FailureKind.OPERATOR,
    "No importer registered for op: RMSNormalization": FailureKind.OPERATOR,
    "Tactic Device request: 4215MB Available: 2315MB. Out of memory": FailureKind.GPU_MEMORY,
    "Could not find any implementation for node {ForeignNode[...]}": FailureKind.GPU_MEMORY,
    "std::bad_alloc": FailureKind.HOST_MEMORY,
    "writing the plan failed: [Errno 28] No space left on device": FailureKind.DISK,
    "graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS) failed. In compileGraph": FailureKind.DRIVER,
    "the compiler did not accept the shape range latents [1, 2]": FailureKind.SHAPES,
    "Error Code 10: something nobody has seen": FailureKind.COMPILER,
}  # fmt: skip
ALL = Coverage(sizes=TRAINED_SIZES)


@pytest.mark.parametrize("words", SEEN)
def test_known_causes(words: str) -> None:
    failure = explain(words)
    assert failure.kind is SEEN[words]
    assert words in failure.words


def test_long_words_are_cut_and_newlines_folded() -> None:
    failure = explain("first\nsecond " + "x" * 5000)
    assert failure.words.startswith("first second xxx")
    assert len(failure.words) <= 600


def test_lack_of_gpu_memory_narrows_workspace_then_streams_then_level() -> None:
    failure = Failure(kind=FailureKind.GPU_MEMORY, words="")
    rungs = list(ladder(failure, BuildOptions(), 16 << 30))
    assert [rung.words for rung in rungs] == [
        "workspace of at most 4096 MiB",
        "workspace of at most 1024 MiB",
        "no auxiliary streams",
        "optimization level 2",
        "optimization level 1",
    ]
    assert rungs[-1].options == BuildOptions(workspace_bytes=1 << 30, max_aux_streams=0, optimization_level=1)


def test_rungs_that_change_nothing_are_left_out() -> None:
    failure = Failure(kind=FailureKind.GPU_MEMORY, words="")
    low = BuildOptions(optimization_level=2, max_aux_streams=0)
    assert [rung.words for rung in ladder(failure, low, None)] == ["optimization level 1"]
    small = BuildOptions(workspace_bytes=1 << 28, optimization_level=1, max_aux_streams=0)
    assert list(ladder(failure, small, 16 << 30)) == []


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not FailureKind.GPU_MEMORY])
def test_other_failures_are_not_tried_again(kind: FailureKind) -> None:
    assert list(ladder(Failure(kind=kind, words=""), BuildOptions(), 16 << 30)) == []


def test_advice_fits_the_cause() -> None:
    def given(kind: FailureKind, coverage: Coverage = ALL) -> str:
        return advice(Failure(kind=kind, words=""), coverage)

    assert "--size 1024x1024" in given(FailureKind.GPU_MEMORY)
    assert given(FailureKind.GPU_MEMORY, Coverage(sizes=((1024, 1024),))) == ""
    assert "more memory" in given(FailureKind.HOST_MEMORY)
    assert "plans prune" in given(FailureKind.DISK)
    assert "--optimization-level 1" in given(FailureKind.TIMEOUT)
    assert given(FailureKind.COMPILER) == ""
