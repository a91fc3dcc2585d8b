"""Says what a comparison is asked for, and refuses what cannot be compared, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER
from ...engine.errors import QuantizationError
from ...export.emulate.torch_device import TorchDevice
from ...export.graphs.recipes import reads_fp8_alone
from ...runtime.executors.options import Device
from ...runtime.inputs.pictures import Picture, read_picture
from ...runtime.inputs.request import Request, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """Holds the options of a comparison.

    Attributes:
        steps: Steps of each request; None takes the bundle's default.
        device: Where torch computes.
        layers: Also look at each quantized layer alone, which takes a run of the denoiser per layer.
        budget_db: Ask which layers to keep for this SQNR of the prediction, in dB.
        real: Where ONNX Runtime also runs the quantized bundle for real, to be held against its emulation; None for
            nowhere.
    """

    steps: int | None = None
    device: TorchDevice = TorchDevice.AUTO
    layers: bool = True
    budget_db: float | None = None
    real: Device | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareCase:
    """Describes a request to compare on: an edit, or without `image` text to image.

    `size` None takes the model's own choice.
    """

    prompt: str
    seed: int
    image: Picture | None = None
    size: tuple[int, int] | None = None

    def request(self, steps: int) -> Request:
        """Return the request, of so many steps."""
        sampling = Sampling(seed=self.seed, steps=steps, size=self.size)
        return Request(prompt=self.prompt, image=self.image, sampling=sampling)


def check_comparison(reference: Bundle, other: Bundle, cases: Sequence[CompareCase], options: CompareOptions) -> None:
    """Refuse a comparison that says nothing.

    Raises:
        QuantizationError: The bundles are of different models or types, or the first is quantized and the second is
            not, or there is no case.
        RequestError, ImageError: A case is no request, or its picture cannot be read.
    """
    if not cases:
        raise QuantizationError("a comparison needs a request at least")
    _check_order(reference, other)
    if _shape(reference) != _shape(other):
        raise QuantizationError(f"{reference.path} and {other.path} are bundles of different models")
    _check_types(reference, other)
    steps = reference.manifest.model.flow.steps if options.steps is None else options.steps
    for case in cases:
        case.request(steps)
        if case.image is not None:
            read_picture(case.image)


def _check_order(reference: Bundle, other: Bundle) -> None:
    """Raise QuantizationError if the reference is quantized and the other is not: they were swapped."""
    quantized = [
        not all(reads_fp8_alone(graph.quantization) for graph in bundle.manifest.graphs.values())
        for bundle in (reference, other)
    ]
    if quantized == [True, False]:
        raise QuantizationError(
            f"{reference.path} is quantized and {other.path} is not: the first bundle is the one that the second is "
            f"held against. Swap them: kontext-trt compare {other.path} {reference.path}"
        )


def _check_types(reference: Bundle, other: Bundle) -> None:
    """Raise QuantizationError if the denoisers compute in two types: the inputs of one are given to the other."""
    types = [bundle.graph(DENOISER).precision.value for bundle in (reference, other)]
    if types[0] != types[1]:
        raise QuantizationError(
            f"{reference.path} computes in {types[0]} and {other.path} in {types[1]}, and what is compared is the cost "
            f"of quantizing, in one type: export one of them again, with --precision"
        )


def _shape(bundle: Bundle) -> tuple[object, ...]:
    model = bundle.manifest.model
    return model.dims, model.num_double_blocks, model.num_single_blocks
