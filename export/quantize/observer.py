"""Uses ModelOpt's quantizers as observers: they sit where quantization will be, and write down what passes.

ModelOpt 0.47 places the quantizers (`mtq.quantize`) and drives them. What they collect with is our own calibrator: its
`HistogramCalibrator` counts in float32 and sums in 32 bits, too narrow for FLUX, where one activation of one step has
27 million values; its bins depend on the first tensor seen, so that runs cannot be added or compared; and it cannot be
continued.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.errors import MissingDependencyError, NotFiniteError
from ..emulate.emulation import QuantizedLinear
from ..graphs.formats import hadamard, smoothed
from ..graphs.ranges import ATTENTION_OPERANDS
from ..graphs.recipes import CALIBRATED, Recipe
from ..networks.layers import Attend
from .calibration import BIN_SHIFT, Observation

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's jit, and of transformers' version, which is not used here
        import modelopt.torch.quantization as mtq
        from modelopt.torch.quantization.calib.calibrator import _Calibrator
        from modelopt.torch.quantization.nn import QuantModuleRegistry, TensorQuantizer
except ImportError as error:
    raise MissingDependencyError(
        "calibrating needs nvidia-modelopt; install it with: pip install 'kontext-trt[quantize]'"
    ) from error

NUM_BINS = 1 << (31 - BIN_SHIFT)
VALUES_COUNTED = 1 << 18
"""The number of a tensor's values, evenly spread, that at most about go into the histogram.

All of them go into the maximum.
"""
FP8_CONFIG = {"num_bits": (4, 3), "axis": None}


class Magnitudes(_Calibrator):
    """Counts magnitudes in a histogram of fixed logarithmic bins, and keeps the largest of them.

    `where` names what is observed in errors.
    """

    def __init__(self, num_bits: Any = (4, 3), axis: Any = None, unsigned: bool = False) -> None:
        super().__init__(num_bits, axis, unsigned)
        self.where = "an activation"
        self.reset()

    def reset(self) -> None:
        self._counts = torch.zeros(NUM_BINS, dtype=torch.int64)
        self._amax, self._tensors = 0.0, 0

    @torch.no_grad()
    def collect(self, x: Tensor) -> None:
        magnitudes = x.detach().flatten().abs()
        amax = float(magnitudes.max())
        if not math.isfinite(amax):
            bad = x.numel() - int(torch.isfinite(x).sum())
            raise NotFiniteError(
                f"{self.where}: {bad:,} of {x.numel():,} values are NaN or infinite; a bundle in bf16 or fp32 instead "
                "of fp16 usually cures this, else the checkpoint is damaged"
            )
        sample = magnitudes[:: max(1, x.numel() // VALUES_COUNTED)].to(torch.float32)
        self._counts += torch.bincount(sample.view(torch.int32) >> BIN_SHIFT, minlength=NUM_BINS).cpu()
        self._amax = max(self._amax, amax)
        self._tensors += 1

    def compute_amax(self, *_: Any, **__: Any) -> Tensor | None:
        return torch.tensor(self._amax) if self._tensors else None

    def take(self) -> Observation | None:
        """Return what was seen since the last time; None if nothing was."""
        if not self._tensors:
            return None
        seen = self._counts.nonzero().flatten()
        first, last = int(seen[0]), int(seen[-1])
        observation = Observation(
            amax=self._amax,
            tensors=self._tensors,
            values=int(self._counts.sum()),
            first_bin=first,
            counts=tuple(self._counts[first : last + 1].tolist()),
        )
        self.reset()
        return observation


class QuantAttend(Attend):
    """Computes attention with a quantizer before each operand, as ModelOpt wants it registered.

    Two more see queries and keys as they are rounded, and change nothing.
    """

    q_quantizer: TensorQuantizer
    k_quantizer: TensorQuantizer
    v_quantizer: TensorQuantizer
    hadamard_q_quantizer: TensorQuantizer
    hadamard_k_quantizer: TensorQuantizer

    def _setup(self) -> None:
        for name in ATTENTION_OPERANDS:
            setattr(self, f"{name}_quantizer", TensorQuantizer())

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.hadamard_k_quantizer.is_enabled:
            self.hadamard_q_quantizer(hadamard(q))
            self.hadamard_k_quantizer(hadamard(smoothed(k)))
        return super().forward(self.q_quantizer(q), self.k_quantizer(k), self.v_quantizer(v))


class ObservedLinear(QuantizedLinear):
    """Computes a layer whose weight is quantized already, with a quantizer before it."""

    input_quantizer: TensorQuantizer

    def _setup(self) -> None:
        self.input_quantizer = TensorQuantizer()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.input_quantizer(x))


def quantizer_config(
    denoiser: nn.Module, recipe: Recipe, cfg: Mapping[str, Any], weights: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return ModelOpt's configuration that enables exactly the quantizers of a recipe.

    They are those of the activations that the recipe quantizes, and, with `weights`, of the weights that they are
    multiplied with.
    """
    wanted: list[str] = []
    for name, module in denoiser.named_modules():
        if isinstance(module, (nn.Linear, QuantizedLinear)) and recipe.format_of(CALIBRATED.name, name) is not None:
            wanted.append(f"{name}.input_quantizer")
        elif isinstance(module, Attend) and recipe.attention_is_fp8(CALIBRATED.name, name):
            wanted += [f"{name}.{part}_quantizer" for part in ATTENTION_OPERANDS]
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    entries += [{"quantizer_name": name, "cfg": dict(cfg)} for name in wanted]
    if weights is not None:
        names = [name.replace(".input_", ".weight_") for name in wanted if name.endswith(".input_quantizer")]
        entries += [{"quantizer_name": name, "cfg": dict(weights)} for name in names]
    return {"quant_cfg": entries, "algorithm": "max"}


def place_quantizers(
    denoiser: nn.Module,
    recipe: Recipe,
    cfg: Mapping[str, Any],
    forward: Callable[[nn.Module], None],
    *,
    weights: Mapping[str, Any] | None = None,
) -> None:
    """Put ModelOpt's quantizers into `denoiser`, in place, and calibrate them by `forward`."""
    register: Callable[..., None] = mtq.register  # its own types say modules where it wants classes
    for original, observed in ((Attend, QuantAttend), (QuantizedLinear, ObservedLinear)):
        if original not in QuantModuleRegistry:
            register(original_cls=original, quantized_cls=observed)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # ModelOpt prints what it inserted
        warnings.simplefilter("ignore")
        mtq.quantize(denoiser, quantizer_config(denoiser, recipe, cfg, weights), forward_loop=forward)


def quantizers(denoiser: nn.Module) -> Iterator[tuple[str, TensorQuantizer]]:
    """Yield the quantizers of activations that are enabled, by the name that calibrations have for what they see.

    The name is a layer's, or `NAME.attend.q` or `.hadamard_q`.
    """
    for name, module in denoiser.named_modules():
        is_activation = not name.endswith("weight_quantizer")
        if isinstance(module, TensorQuantizer) and module.is_enabled and is_activation:
            yield name.removesuffix("_quantizer").removesuffix(".input"), module


def observe(denoiser: nn.Module, recipe: Recipe, run: Callable[[Mapping[str, Magnitudes]], None]) -> None:
    """Call `run` with the observers of all that the recipe quantizes, placed in `denoiser`."""

    def forward(placed: nn.Module) -> None:
        observers: dict[str, Magnitudes] = {}
        for name, quantizer in quantizers(placed):
            calibrator: Any = quantizer._calibrator
            assert isinstance(calibrator, Magnitudes)
            observers[name] = calibrator
            calibrator.where = f"denoiser, input of {name}"
        run(observers)

    place_quantizers(denoiser, recipe, {**FP8_CONFIG, "calibrator": Magnitudes}, forward)
