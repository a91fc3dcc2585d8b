"""Reads what generated kernels compute, from their text, which TensorRT-RTX keeps in its plans.

A strongly typed network says the types of tensors, not those of the steps inside an operator: there a compiler rounds
as it likes, constants too. The text tells.
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .layers import Layer

_BEGIN = re.compile(rb'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(')
_END = b"\n}\n"
_LONGEST = 1 << 20
"""The most bytes that the text of one kernel is looked for in."""
_STEP = re.compile(rb"(__v\d+)(?:\.values\[\d+\])? = __myln_([a-z]+)___myln_([a-z0-9]+)___myln_")
_QUANTIZED = re.compile(rb"(__v\d+)(?:\.values\[\d+\])? = __myln_cast<__myln_fp8_e4m3, __myln_([a-z0-9]+)>")
_SCALE = re.compile(rb"\.initialize\(DATA_TYPE_(?:BF16|FP16|FP32)[^;]*?, (0x[0-9a-f.]+p[+-]\d+)f")
_VARIANT = re.compile(r"(?:_com)?(?:_vec)?$")
_FORMATS = {"float": "fp32", "half": "fp16", "bf16": "bf16"}
_QUANTIZE = "quantize"
_FUNCTIONS = {"tanh", "exp", "exp2", "log", "erf", "sigmoid", "pow", "sqrt", "rsqrt", "div", "sin", "cos", "gelu"} | {
    _QUANTIZE
}
"""The functions that lose digits in 16 bits: what comes in is rounded, and what they are made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Describes a generated kernel.

    Attributes:
        name: Its name, which listings call a layer's tactic.
        steps: How often it computes what, by function and number format: ("tanh", "bf16").
        attention_scales: What it multiplies attention's scores by, as decimals; of FP8 operands, where it is their
            scales, nothing.
    """

    name: str
    steps: Mapping[tuple[str, str], int]
    attention_scales: tuple[str, ...] = ()

    @property
    def steps_by_format(self) -> dict[str, int]:
        """The number of its steps per number format."""
        counted = Counter[str]()
        for (_, number_format), count in self.steps.items():
            counted[number_format] += count
        return dict(counted)


def kernels_in_plan(plan: Path) -> list[Kernel]:
    """Return the generated kernels whose text a plan holds; none where it holds no text.

    A kernel comes in variants, of which the one that is unrolled least counts.
    """
    with plan.open("rb") as file:
        if not plan.stat().st_size:
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found: dict[str, Kernel] = {}
            for begin in _BEGIN.finditer(data):
                kernel = _kernel(begin[1].decode(), data[begin.end() : begin.end() + _LONGEST].partition(_END)[0])
                known = found.get(kernel.name)
                if known is None or sum(kernel.steps.values()) < sum(known.steps.values()):
                    found[kernel.name] = kernel
    return list(found.values())


def _kernel(name: str, text: bytes) -> Kernel:
    results = {(step[1], step[2], step[3]) for step in _STEP.finditer(text)}  # of a vector, all elements are one step
    steps = Counter(
        (function.decode(), _FORMATS[kind.decode()])
        for _, function, kind in results
        if kind.decode() in _FORMATS and function != b"move"
    )
    steps.update(
        (_QUANTIZE, _FORMATS[kind])
        for _, kind in {(cast[1], cast[2].decode()) for cast in _QUANTIZED.finditer(text)}
        if kind in _FORMATS
    )
    scales = tuple(f"{float.fromhex(match[1].decode()):.7g}" for match in _SCALE.finditer(text))
    return Kernel(name=_VARIANT.sub("", name), steps=dict(steps), attention_scales=scales)


def rounded_functions(kernels: Iterable[Kernel], layers: Sequence[Layer]) -> Iterator[str]:
    """Say of each kernel that computes functions in 16 bits which, and for which of the graph's nodes."""
    nodes = {layer.kernel: layer.nodes for layer in layers}
    for kernel in kernels:
        narrow = sorted({f"{name} in {kind}" for name, kind in kernel.steps if name in _FUNCTIONS and kind != "fp32"})
        if narrow:
            yield f"{' and '.join(narrow)} for {' '.join(nodes.get(kernel.name, ())) or kernel.name}"
