"""Loads and times diffusers' pipeline, as the child of `peers`.

python -m kontext_trt.benchmarks.bench.peer_process REQUEST RESULT
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.bundle.tensor_file import TensorFile
from ...engine.components import Precision
from ...engine.sizes import token_grid
from ...engine.system.memory import peak_resident_bytes
from ...export.configs import FOLDERS
from ...runtime.flow.noise import starting_noise
from ..program import result_file, run_main
from .nvml import GpuSampler
from .peers import PeerName, PeerRequest, read_request
from .records import PICTURES_DIFFER, Case, ComponentMemory, EngineRun, Memory, Spread

if TYPE_CHECKING:
    import torch

    from .stage_times import StageTimes

PRECISIONS = {precision.number.safetensors: precision for precision in Precision}
COMPILE_STEPS = 2


def main() -> None:
    """Measure what the request file asks for and write the result file."""
    parser = argparse.ArgumentParser(description="Load and time diffusers' pipeline.")
    parser.add_argument("request", type=Path, help="what `peers` asks for, as JSON")
    parser.add_argument("result", type=result_file, help="the JSON file to write")
    arguments = parser.parse_args()
    run = measure(read_request(arguments.request))
    arguments.result.write_bytes(msgspec.json.encode(run))


def measure(asked: PeerRequest) -> EngineRun:
    """Import, open and load, compile if asked to, then run one request in the cold and `repeat` warm ones."""
    cold: dict[str, float] = {}
    watch = _PeerWatch(cold)
    with GpuSampler() as idle:
        pass
    import torch
    from diffusers import FluxKontextPipeline

    watch.lap("import")
    from ...export.environment import quiet_libraries
    from .peer_compile import compile_decoder, compile_transformer, to_fp8

    quiet_libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = Precision(asked.precision) if asked.precision else stored_precision(asked.checkpoint)
    watch.start()
    pipeline = FluxKontextPipeline.from_pretrained(asked.checkpoint, dtype=getattr(torch, precision.number.torch))
    watch.lap("open")
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    _wait(device)
    watch.lap("load")
    notes: list[str] = []
    graph_bytes = None
    if asked.peer is PeerName.FP8:
        notes += to_fp8(pipeline.transformer)
        watch.lap("quantize")
    request = _Request(asked, pipeline, device, precision)
    if asked.peer.compiled:
        short = msgspec.structs.replace(asked.case, steps=COMPILE_STEPS)
        decoding = compile_decoder(pipeline, asked.case.size, asked.case.batch, search=asked.search_decoder)
        watch.lap("compile decoder")
        graphed, compiling = compile_transformer(pipeline, lambda: request.call(short, output_type="latent"))
        watch.lap("compile transformer")
        graph_bytes = graphed.size_bytes if graphed else None
        notes += [*compiling, *decoding]
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what the search for kernels needed is no part of a request's memory
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    request.time_stages()
    with GpuSampler() as gpu:
        picture, first = request.timed()
        cold["first request"] = first["total"][0]
        picture.save(asked.picture)
        gpu.forget()
        warm: dict[str, list[float]] = {}
        same = True
        for _ in range(asked.repeat):
            repeated, times = request.timed()
            same = same and np.array_equal(np.asarray(repeated), np.asarray(picture))
            for stage, values in times.items():
                warm.setdefault(stage, []).extend(values)
        clocks = gpu.clocks()
    if not same:
        notes.append(PICTURES_DIFFER)
    peak = None if gpu.used_bytes is None or idle.first_bytes is None else gpu.used_bytes - idle.first_bytes
    return EngineRun(
        engine=asked.peer.value,
        executor=f"torch-{device.type}",
        bundle=None,
        precision="fp8" if asked.peer is PeerName.FP8 else precision.value,
        cold=cold,
        warm={stage: Spread.of(values) for stage, values in warm.items()},
        memory=_memory(pipeline, device, peak, graph_bytes),
        clocks=clocks if device.type == "cuda" else None,
        notes=tuple(notes),
    )


def stored_precision(checkpoint: Path) -> Precision:
    """Return the type that most of the transformer's bytes are stored in; raise ValueError for any but float types."""
    sizes: Counter[str] = Counter()
    for file in sorted((checkpoint / "transformer").glob("*.safetensors")):
        for entry in TensorFile.open(file).tensors.values():
            sizes[entry.dtype] += entry.size_bytes
    stored = max(sizes, key=lambda name: sizes[name], default="nothing")
    if stored not in PRECISIONS:
        raise ValueError(f"{checkpoint / 'transformer'} holds {stored}; diffusers runs {', '.join(PRECISIONS)}")
    return PRECISIONS[stored]


class _PeerWatch:
    """Measures milliseconds from one point of the program to the next."""

    def __init__(self, laps: dict[str, float]) -> None:
        self._laps = laps
        self.start()

    def start(self) -> None:
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = 1e3 * (now - self._since)
        self._since = now


class _Request:
    """Asks the case of a pipeline with the noise of this project's runtime.

    What torch itself draws in 16-bit types for a seed is another noise up to 2.11 than in 2.13.
    """

    def __init__(self, asked: PeerRequest, pipeline: Any, device: torch.device, precision: Precision) -> None:
        self._pipeline, self._device, self._case, self._precision = pipeline, device, asked.case, precision
        self._image = None if asked.image is None else Image.open(asked.image).convert("RGB")
        size = None if self._image is None else self._image.size
        if size != asked.case.reference:
            raise ValueError(f"the reference is {size}, the case says {asked.case.reference}")
        self._times: StageTimes | None = None

    def time_stages(self) -> None:
        """Time the stages of each request from here on; a step is the transformer and the scheduler's own step."""
        from .stage_times import StageTimes

        self._times = times = StageTimes(self._device)
        pipeline = self._pipeline
        for name in ("text_encoder", "text_encoder_2"):
            encoder = getattr(pipeline, name)
            encoder.forward = times.around("text", encoder.forward)
        pipeline.vae.encode = times.around("encode", pipeline.vae.encode)
        pipeline.vae.decode = times.around("decode", pipeline.vae.decode)
        forward = pipeline.transformer.forward

        def step(*arguments: Any, **options: Any) -> Any:
            times.begin("step")
            return forward(*arguments, **options)

        pipeline.transformer.forward = step

    def call(self, case: Case, *, output_type: str = "pil") -> list[Any]:
        import torch

        width, height = case.size
        return self._pipeline(
            image=self._image,
            prompt=case.prompt,
            width=width,
            height=height,
            max_area=width * height,
            num_inference_steps=case.steps,
            guidance_scale=case.guidance,
            num_images_per_prompt=case.batch,
            latents=torch.from_numpy(self._noise(case)),
            max_sequence_length=self._pipeline.tokenizer_2.model_max_length,
            output_type=output_type,
            callback_on_step_end=self._on_step_end,
            _auto_resize=False,
        ).images

    def _noise(self, case: Case) -> NDArray[np.float32]:
        grid, channels = token_grid(case.size), self._pipeline.transformer.config.in_channels
        return np.concatenate([starting_noise(seed, grid, channels, self._precision) for seed in case.seeds])

    def _on_step_end(self, *_: object) -> dict[str, object]:
        if self._times is not None:
            self._times.end("step")
        return {}

    def timed(self) -> tuple[Image.Image, dict[str, list[float]]]:
        """Return the first picture, and milliseconds by stage.

        The stages are the request as its caller waits for it, stages added up, and single steps.
        """
        assert self._times is not None
        _wait(self._device)
        start = time.perf_counter()
        pictures = self.call(self._case)
        _wait(self._device)
        total = 1e3 * (time.perf_counter() - start)
        taken = self._times.take()
        steps = taken.pop("step")
        stages = {name: sum(values) for name, values in taken.items()} | {"denoise": sum(steps)}
        times = {"total": [total], "step": steps, "host_gap": [total - sum(stages.values())]}
        return pictures[0], times | {name: [value] for name, value in stages.items()}


def _memory(pipeline: Any, device: torch.device, peak: int | None, graph_bytes: int | None) -> Memory:
    import torch

    weights = {
        name: sum(stored_bytes(tensor) for tensor in getattr(pipeline, part).parameters())
        for name, part in FOLDERS.items()
    }
    on_gpu = device.type == "cuda"
    return Memory(
        components={name: ComponentMemory(weights=size, reckoned=size) for name, size in weights.items()},
        arena=max(0, torch.cuda.max_memory_allocated() - sum(weights.values())) if on_gpu else None,
        buffers=None,
        graphs=graph_bytes,
        device_peak=peak if on_gpu else None,
        host_peak=peak_resident_bytes(),
        host_anonymous=0,  # the parent samples it
    )


def stored_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor.

    A quantized one counts by what it is made of, as it goes by the type it stands for.
    """
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
        return sum(stored_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()


if __name__ == "__main__":
    run_main(main)
