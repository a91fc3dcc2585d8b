"""Measures what rounding attention to FP8 costs the small model, operand by operand, and what makes it cost less.

    python -m kontext_trt.benchmarks.quality.attention_rounding BUNDLE [--count N] [--steps N] [--json]

BUNDLE computes attention in its own type: an unquantized one of the small Kontext, or one of the recipe fp8. Torch
computes EditBench's requests with each way of rounding, by scales of each tensor's largest value, and their last
latents are held against those without any.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER
from ...engine.errors import QuantizationError
from ...export.environment import quiet_libraries, require_export
from ...runtime.inputs.request import Request, Sampling
from ...runtime.kontext import Kontext
from ..program import positive, print_rows, run_main
from .editbench.cases import NUM_CASES, EditCase, cases
from .editbench.evaluation import check_sizes
from .metrics import sqnr_db

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...export.emulate.torch_executor import TorchExecutor

STEPS, COUNT, SEED = 12, 24, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """Says which of attention's operands are rounded to FP8, "q", "k", "v" and the probabilities "p", and how.

    Attributes:
        operands: The letters of those that are.
        smoothed: Keys leave out their mean over some tokens.
        hadamard: Queries and keys are multiplied by Hadamard's matrix.
    """

    operands: str = "qkvp"
    smoothed: bool = False
    hadamard: bool = False

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention (b, s, h * d) of (b, h, s, d) each; queries come scaled."""
        from einops import rearrange

        from ...export.graphs.formats import fake_fp8, fp8_scale, hadamard, smoothed
        from ...export.graphs.quantizer import PROBABILITY_SCALE

        k = smoothed(k).to(v.dtype) if self.smoothed else k
        q, k = (hadamard(x).to(v.dtype) for x in (q, k)) if self.hadamard else (q, k)
        q, k, v = (
            fake_fp8(x, fp8_scale(x.abs().amax(), x.float().dtype)) if letter in self.operands else x
            for letter, x in zip("qkv", (q, k, v), strict=True)
        )
        probabilities = (q.float() @ k.float().transpose(-2, -1)).softmax(-1)
        if "p" in self.operands:
            probabilities = fake_fp8(probabilities, PROBABILITY_SCALE)
        return rearrange(probabilities @ v.float(), "b h s d -> b s (h d)").to(v.dtype)


WAYS: Mapping[str, Rounding] = {
    "queries": Rounding(operands="q"),
    "keys": Rounding(operands="k"),
    "values": Rounding(operands="v"),
    "probabilities": Rounding(operands="p"),
    "all": Rounding(),
    "all, Hadamard": Rounding(hadamard=True),
    "all, keys smoothed": Rounding(smoothed=True),
    "all, both": Rounding(hadamard=True, smoothed=True),
}


def measure(bundle: Bundle, chosen: Sequence[EditCase], steps: int) -> dict[str, list[float]]:
    """Return the SQNR of each case's last latents in dB, by the way of rounding.

    Raises:
        BundleError: The bundle is of another model.
        QuantizationError: Its attention is in FP8 already.
    """
    from ...export.emulate.torch_executor import TorchExecutor

    check_sizes(bundle.manifest.model.sizes)
    executor = TorchExecutor(bundle, hold_weights=True)
    attentions = _attentions(executor)
    with Kontext(bundle, executor) as kontext:
        exact = [_latents(kontext, case, steps) for case in chosen]
        found: dict[str, list[float]] = {}
        for name, way in WAYS.items():
            for one in attentions:
                one.forward = way.attend
            made = (_latents(kontext, case, steps) for case in chosen)
            found[name] = [sqnr_db(wanted, latents) for wanted, latents in zip(exact, made, strict=True)]
    return found


def _attentions(executor: TorchExecutor) -> list[nn.Module]:
    from ...export.emulate.emulation import QuantizedAttend
    from ...export.networks.layers import Attend

    modules = list(executor.module(DENOISER.name).modules())
    if any(isinstance(one, QuantizedAttend) for one in modules):
        raise QuantizationError(
            f"{executor.bundle.path} has its attention in FP8 already; take the bundle that it was made from"
        )
    return [one for one in modules if isinstance(one, Attend)]


def _latents(kontext: Kontext, case: EditCase, steps: int) -> NDArray[np.float32]:
    reference = case.sample.reference()
    request = Request(
        prompt=case.sample.instruction,
        image=None if reference is None else Image.fromarray(reference),
        sampling=Sampling(steps=steps, seed=SEED, size=case.sample.size),
    )
    return kontext.run(request).outputs[0].latents


def rows(found: Mapping[str, Sequence[float]]) -> list[dict[str, float | str]]:
    """Return the table's rows: the median and the worst of each way."""
    return [
        {"rounded": name, "median_db": round(float(np.median(values)), 1), "worst_db": round(min(values), 1)}
        for name, values in found.items()
    ]


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print. `given` are arguments in place of the process's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--count", type=positive, default=COUNT, help=f"requests of EditBench, up to {NUM_CASES}")
    parser.add_argument("--steps", type=positive, default=STEPS, help="steps of each")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    bundle = Bundle.open(arguments.bundle)
    require_export("emulating")
    quiet_libraries()
    chosen = cases(min(arguments.count, NUM_CASES))
    about = {"bundle": bundle.fingerprint[:12], "requests": len(chosen), "steps": arguments.steps}
    print_rows(about, rows(measure(bundle, chosen, arguments.steps)), as_json=arguments.json)


if __name__ == "__main__":
    run_main(main)
