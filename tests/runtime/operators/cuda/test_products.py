"""Products on different streams work in memory of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from simulated_cuda import SimulatedCuda

from kontext_trt.runtime.operators.cuda import products
from kontext_trt.runtime.operators.cuda.products import LinearCall, Matrix, Products


def test_each_stream_has_a_workspace(monkeypatch: pytest.MonkeyPatch):
    cuda, used = SimulatedCuda(), list[tuple[int, int]]()
    streams = [cuda.stream() for _ in range(3)]
    device = SimpleNamespace(cuda=cuda, stream=streams[0], stream_address=cuda.stream_address(streams[0]))
    library = SimpleNamespace(
        get_version=lambda: 1,
        create=lambda: 1,
        destroy=lambda handle: None,
        matmul=lambda *given: used.append((given[-3], given[-1])),
    )
    monkeypatch.setattr(products, "WORKSPACE_BYTES", 256)
    monkeypatch.setattr(
        products.importlib, "import_module", lambda name: library if "Lt" in name else SimpleNamespace(CudaDataType=0)
    )
    made = Products(cast(Any, device))
    made.reserve(streams[1])
    made.reserve(streams[1])
    plan = products._Plan(descriptor=1, layouts=(1, 2, 3, 4), results=made_up_results(), measured=True)
    matrix = Matrix(address=1 << 20, rows=16, columns=16, stride=16)
    call = LinearCall(x=matrix, weight=matrix, bias=0, y=matrix)
    made._plans[call.kind] = plan
    made(call)
    made(call, streams[1])
    made(call)
    assert [stream for _, stream in used] == [cuda.stream_address(streams[one]) for one in (0, 1, 0)]
    assert used[0][0] == used[2][0] != used[1][0]
    with pytest.raises(KeyError):  # a stream that nobody has reserved memory for
        made(call, streams[2])
    made._plans.clear()
    made.close()
    assert cuda.open_handles == 3, "but for the streams"


def made_up_results() -> Any:
    import numpy as np

    return np.zeros(1, np.uint8)
