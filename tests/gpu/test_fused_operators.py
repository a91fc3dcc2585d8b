"""Compares the kernel of every fused operator with its body, which ONNX Runtime runs in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from kontext_trt.engine.components import Precision
from kontext_trt.engine.system.gpus import find_gpus
from kontext_trt.runtime.device.cuda import CudaPython
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.definition import Definition
from kontext_trt.runtime.operators.fused import FusedOperators
from kontext_trt.runtime.operators.picture_operators import PICTURE_OPERATORS
from tests.support.fused_models import Arrays, Sizes, arrays, attributes, model

ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.gpu

NATURAL = Sizes(
    pictures=1, text=512, image=1024, heads=24, width=128, wide=12288, rows=96, columns=128, channels=256, filters=128
)
ODD = Sizes(pictures=2, text=24, image=41, heads=3, width=64, wide=160, rows=14, columns=22, channels=32, filters=40)
HALF_A_PACK = Sizes(rows=30, columns=34, channels=128, filters=512)
"""The groups of four channels, two of which a thread loads at once."""
ACROSS_PACKS = Sizes(rows=30, columns=34, channels=96)
"""The groups of three channels, which begin anywhere in what a thread loads at once."""
ENDS = Sizes(pictures=1, rows=64, columns=96, channels=3, filters=128), Sizes(rows=64, columns=96, filters=3)
"""The first and the last convolution of the autoencoder, whose channels are no multiple of 8."""
ONE_WIDE_HEAD = Sizes(pictures=2, text=512, image=6144, heads=1, width=512)
"""The attention of the autoencoder; too large for all scores at once."""
ODD_KEYS = [
    Sizes(pictures=2, text=text, image=image, heads=1, width=512) for text, image in ((512, 6148), (24, 41), (13, 1))
]
"""The same with keys that are no multiple of 8: a third of the trained sizes have such, and others may be odd."""
ODD_RANKS = [Sizes(rank=rank) for rank in (1, 5)]
"""The ranks of LoRAs whose rows lie no whole number of packs apart."""
CASES = [
    *((name, sizes) for name in DEFINITIONS for sizes in (NATURAL, ODD)),
    *((one.name, HALF_A_PACK) for one in PICTURE_OPERATORS),
    *((name, ACROSS_PACKS) for name in ("GroupNorm", "GroupNormSilu")),
    *(("Convolution", sizes) for sizes in ENDS),
    *(("Attend", sizes) for sizes in (ONE_WIDE_HEAD, *ODD_KEYS)),
    *((name, sizes) for name in DEFINITIONS if "branched" in name for sizes in ODD_RANKS),
]


@pytest.fixture(scope="module")
def device() -> Iterator[tuple[CudaPython, object, FusedOperators]]:
    pytest.importorskip("nvmath")
    cuda, gpu = CudaPython(), find_gpus()[0][0]
    stream = cuda.stream()
    fused = FusedOperators(cuda, stream, f"sm_{gpu.major}{gpu.minor}")
    yield cuda, stream, fused
    cuda.synchronize(stream)
    fused.close()


def run(data: bytes, inputs: Arrays, device: tuple[CudaPython, object, FusedOperators] | None) -> Arrays:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if device is None:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    else:
        cuda, stream, fused = device
        provider = {"user_compute_stream": str(cuda.stream_address(stream))}
        with fused.opening(options):
            session = ort.InferenceSession(
                data, options, providers=[("CUDAExecutionProvider", provider), "CPUExecutionProvider"]
            )
    names = [output.name for output in session.get_outputs()]
    for _ in range(2):
        results = session.run(names, inputs)
    return dict(zip(names, results, strict=True))


def tolerance(definition: Definition) -> float:
    """Return the relative error that rounding explains: FP8 has 4 bits, bfloat16 8."""
    if definition.format.attention:
        return 6e-2
    return 2.5e-2 if definition.format.result else 8e-3


@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_kernel_computes_what_the_body_says(
    name: str, sizes: Sizes, device: tuple[CudaPython, object, FusedOperators]
) -> None:
    definition = DEFINITIONS[name]
    gpu = find_gpus()[0][0]
    if definition.format.attention and (gpu.major, gpu.minor) < (9, 0):
        pytest.skip("FP8 attention needs sm_90")
    inputs, given = arrays(definition, sizes), attributes(definition, sizes)
    body = run(model(definition, Precision.FP32, given), inputs, None)
    kernel = run(model(definition, Precision.BF16, given), inputs, device)
    again = run(model(definition, Precision.BF16, given), inputs, device)
    for output, wanted in body.items():
        assert kernel[output].shape == wanted.shape
        error = np.linalg.norm(kernel[output] - wanted) / np.linalg.norm(wanted)
        print(f"{name} {output}: {error:.1e}")
        assert error < tolerance(definition), f"{output}: {error:.1e}"
        if definition.operator in PICTURE_OPERATORS:
            np.testing.assert_array_equal(again[output], kernel[output])
