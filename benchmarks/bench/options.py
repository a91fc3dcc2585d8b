"""Holds what a benchmark is asked for; it is light to import, because the command line does so whatever the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import RequestError
from ...engine.lora.choice import LoraChoice
from ...engine.sizes import Size
from ...runtime.executors.options import ExecutorName
from .peers import TIMEOUT_S, PeerName

REPORT, PAGE, CHART, REFERENCE = "bench.jsonl", "bench.html", "bench.png", "reference.png"
PROMPT = "make it blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Says what to measure.

    Attributes:
        bundle: The bundle that is measured.
        out: The folder for the report and pictures.
        executor: What runs the bundle.
        devices: The numbers of the devices that share each of our requests; none for one device. Peers have one.
        vram_bytes: Bytes of GPU memory to plan for; default: what is free.
        graphs: Whether CUDA graphs are recorded.
        image: The reference; default: a smooth colourful picture of the squarest trained size.
        generate: Text to image, without a reference.
        prompt: The request's prompt.
        size: (width, height) of the output; default: the reference's trained size.
        steps: Steps of the flow; default: the bundle's.
        guidance: The guidance; default: the bundle's.
        batch: Pictures per request, of seeds from `seed` on.
        seed: The first picture's seed.
        repeat: Warm requests.
        checkpoint: The diffusers folder of the same weights, which peers load.
        peers: What is measured beside it.
        peer_timeout_s: Seconds for each peer, compiling included. What it has compiled until then is found again in
            `out`.
        search_decoder: Let a compiled peer search for the best kernels of its decoder, too, which takes five minutes.
        ceilings: Measure what the GPU reaches with plain kernels; needs torch and a CUDA device.
        ablation: Switch each gain off by itself.
        unpruned: For the ablation, a bundle of the same weights whose last block computes every token.
        loras: What is swapped in, of a bundle with branches.

    Raises:
        RequestError: Options contradict each other or are out of range.
    """

    bundle: Path
    out: Path
    executor: ExecutorName = ExecutorName.AUTO
    devices: tuple[int, ...] = ()
    vram_bytes: int | None = None
    graphs: bool = True
    image: Path | None = None
    generate: bool = False
    prompt: str = PROMPT
    size: Size | None = None
    steps: int | None = None
    guidance: float | None = None
    batch: int = 1
    seed: int = 0
    repeat: int = 5
    checkpoint: Path | None = None
    peers: tuple[PeerName, ...] = ()
    peer_timeout_s: float = TIMEOUT_S
    search_decoder: bool = True
    ceilings: bool = True
    ablation: bool = False
    unpruned: Path | None = None
    loras: tuple[LoraChoice, ...] = ()

    def __post_init__(self) -> None:
        if min(self.batch, self.repeat) < 1:
            raise RequestError("a benchmark needs at least one picture a request and one warm request")
        if not self.peer_timeout_s > 0:
            raise RequestError(f"a peer's time must be positive, not {self.peer_timeout_s} s")
        if len(set(self.peers)) < len(self.peers):
            raise RequestError("each peer is measured once: leave out the second --peer of a name")
        if self.generate and self.image is not None:
            raise RequestError("a request has a reference or is text to image: give --image or --generate, not both")
        if self.ablation and self.devices:
            raise RequestError("--ablation switches gains off on one device: leave out --devices")
        if self.unpruned is not None and not self.ablation:
            raise RequestError("--unpruned is for --ablation")
        if self.checkpoint is not None and not self.peers:
            raise RequestError("--checkpoint is for --peer")
        if self.peers and self.checkpoint is None:
            raise RequestError("peers need --checkpoint, the diffusers folder that the bundle was exported from")
