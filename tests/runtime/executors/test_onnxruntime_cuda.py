"""What is known of ONNX Runtime's CUDA engines without a GPU."""

from collections.abc import Callable
from types import SimpleNamespace

import onnxruntime
import pytest

from kontext_trt import Bundle, ExecutorError
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.engine.errors import GpuMemoryError, RequestError
from kontext_trt.runtime.device.graphs import Graphs
from kontext_trt.runtime.device.loading import LoadedEngines
from kontext_trt.runtime.device.memory import Arena
from kontext_trt.runtime.device.residency import Cost, everything_resident
from kontext_trt.runtime.executors import onnxruntime_cuda
from kontext_trt.runtime.executors.onnxruntime_cuda import OnnxRuntimeEngine, OnnxRuntimeEngines


class Opened:
    """Engines over sessions that are never run."""

    name, allocates = "onnxruntime", True

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def open(self, component: str, stream: object, streaming_budget: int | None) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(self._bundle.component(component), object(), onnxruntime, 0, fused=False)


def test_clip_is_enqueued_and_all_else_recorded(bundle: Bundle):
    """ONNX Runtime waits for an event in the middle of CLIP, which fails while a graph is recorded."""
    costs = {name: Cost(weights=1, activations=0) for name in COMPONENTS}
    plan = everything_resident(costs, fixed=0, budget=10)
    graphs = Graphs()
    arena = Arena(None, 0, graphs)  # type: ignore[arg-type]
    engines = LoadedEngines(Opened(bundle), plan, None, 0, graphs, arena)  # type: ignore[arg-type]
    for name in COMPONENTS:
        engines.ready(name)
    assert {name: engines.may_record([name]) for name in COMPONENTS} == {name: name != "clip" for name in COMPONENTS}


def test_what_is_quantized_without_kernels_is_refused_in_words(wide_quantized: Callable[..., Bundle]):
    """ONNX Runtime 1.31 says that a provider's type is not set."""
    engines = OnnxRuntimeEngines(wide_quantized("fp8"), SimpleNamespace(device=0))  # type: ignore[arg-type]
    with pytest.raises(ExecutorError, match=r"denoiser is quantized \(fp8\), for which ONNX Runtime has no kernels"):
        engines.open("denoiser", object(), None)


@pytest.mark.parametrize(("device", "told"), [(0, {}), (1, {"device_id": "1"})])
def test_only_another_device_than_the_first_is_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: int, told: dict[str, str]
):
    """ONNX Runtime logs a warning for each session whose provider is told a device."""
    seen: list[dict[str, str]] = []

    def record(bundle: Bundle, component: str, providers: list, **_: object) -> SimpleNamespace:
        ((name, provider), rest) = providers
        assert (name, rest) == ("CUDAExecutionProvider", "CPUExecutionProvider")
        seen.append(provider)
        return SimpleNamespace(get_providers=lambda: [name, rest])

    monkeypatch.setattr(onnxruntime_cuda, "open_session", record)
    monkeypatch.setattr(onnxruntime_cuda, "share_arena", lambda device: None)
    monkeypatch.setattr(onnxruntime_cuda, "Emptier", lambda device: lambda: None)
    cuda = SimpleNamespace(device=device, stream_address=lambda stream: 4096)
    OnnxRuntimeEngines(bundle, cuda).open("clip", object(), None)  # type: ignore[arg-type]
    (provider,) = seen
    assert {name: value for name, value in provider.items() if name == "device_id"} == told
    assert provider["user_compute_stream"] == "4096"


def test_kernels_have_the_group_that_was_joined(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    """It is left when engines are closed."""
    closed: list[str] = []
    group = SimpleNamespace(close=lambda: closed.append("group"))

    class Operators:
        def __init__(self, cuda: object, stream: object, architecture: str, **options: object) -> None:
            assert (stream, options["group"]) == ("stream", group)

        def compile(self, *_: object) -> None:
            """Compile nothing."""

        def close(self) -> None:
            closed.append("kernels")

    monkeypatch.setattr(onnxruntime_cuda, "FusedOperators", Operators)
    monkeypatch.setattr(onnxruntime_cuda, "has_kernels", lambda bundle, component: component != "clip")
    engines = OnnxRuntimeEngines(bundle, SimpleNamespace(device=0), "sm_90")  # type: ignore[arg-type]
    assert engines.group is None
    engines.group = group  # type: ignore[assignment]
    assert engines._kernels("clip", "stream") is None
    for component in ("vae_encoder", "denoiser"):
        assert engines._kernels(component, "stream") is not None
    engines.close()
    assert closed == ["kernels", "group"]
    assert engines.group is None


def test_a_denoiser_without_kernels_is_not_computed_by_ranks(bundle: Bundle):
    """Each would attend to its own tokens alone."""
    engines = OnnxRuntimeEngines(bundle, SimpleNamespace(device=0), None)  # type: ignore[arg-type]
    engines.group = SimpleNamespace()  # type: ignore[assignment]
    with pytest.raises(ExecutorError, match="denoiser has no kernels here, and nothing else computes a request on sev"):
        engines._kernels("denoiser", "stream")
    assert engines._kernels("vae_decoder", "stream") is None


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ExecutorError("Failed to allocate memory for requested buffer of size 123"), GpuMemoryError),
        (ExecutorError("cuLaunchKernel failed: out of memory (CUDA_ERROR_OUT_OF_MEMORY)"), GpuMemoryError),
        (GpuMemoryError("cudaMalloc failed: out of memory"), GpuMemoryError),
        (ExecutorError("cuDNN has no attention"), ExecutorError),
        (RequestError("out of memory is no reason here"), RequestError),
        (RuntimeError("Failed to allocate memory"), GpuMemoryError),
    ],
)
def test_memory_that_a_kernel_did_not_get_is_told_as_such(bundle: Bundle, raised: Exception, kind: type[Exception]):
    """So room is made for it, and where ranks share the request all are started anew."""

    class Binding:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: None

    def fail(*_: object) -> None:
        raise raised

    session = SimpleNamespace(io_binding=Binding, run_with_iobinding=fail)
    engine = OnnxRuntimeEngine(bundle.component("vae_decoder"), session, onnxruntime, 0, fused=True)  # type: ignore[arg-type]
    spec = SimpleNamespace(element_type=SimpleNamespace(number=SimpleNamespace(onnx_number=1)))
    component = bundle.component("vae_decoder")
    ports = {
        port.name: SimpleNamespace(spec=spec, shape=(1,), address=1) for port in (*component.inputs, *component.outputs)
    }
    with pytest.raises(Exception, match=str(raised)[:10]) as found:
        engine.enqueue(ports)  # type: ignore[arg-type]
    assert type(found.value) is kind
    assert kind is not type(raised) or found.value is raised


def test_two_that_use_a_device_take_turns(bundle: Bundle):
    one, other, apart = (OnnxRuntimeEngines(bundle, SimpleNamespace(device=device)) for device in (0, 0, 1))  # type: ignore[arg-type]
    assert one.turn is other.turn
    assert one.turn is not apart.turn
