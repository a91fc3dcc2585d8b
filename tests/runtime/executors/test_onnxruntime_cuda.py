"""What is known of ONNX Runtime's CUDA engines without a GPU."""

import onnxruntime

from kontext_trt import Bundle
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.runtime.device.graphs import Graphs
from kontext_trt.runtime.device.loading import LoadedEngines
from kontext_trt.runtime.device.residency import Cost, everything_resident
from kontext_trt.runtime.executors.onnxruntime_cuda import OnnxRuntimeEngine


class Opened:
    """Engines over sessions that are never run."""

    name, allocates = "onnxruntime", True

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def open(self, component: str, stream: object, streaming_budget: int | None) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(component, object(), onnxruntime, 0)


def test_clip_is_enqueued_and_all_else_recorded(bundle: Bundle):
    """ONNX Runtime waits for an event in the middle of CLIP, which fails while a graph is recorded."""
    costs = {name: Cost(weights=1, activations=0) for name in COMPONENTS}
    plan = everything_resident(costs, fixed=0, budget=10)
    engines = LoadedEngines(Opened(bundle), plan, None, 0, Graphs())  # type: ignore[arg-type]
    for name in COMPONENTS:
        engines.ready(name)
    assert {name: engines.may_record([name]) for name in COMPONENTS} == {name: name != "clip" for name in COMPONENTS}
