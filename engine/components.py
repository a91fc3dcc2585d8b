"""Defines the components: their inputs and outputs, how often each runs, what is done with its graph.

Six are in every bundle, one comes with a feature. This is the one table of them: the exporter, profiles, executors,
recipes and the checks of a built engine ask it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from .growth import GrowsWith
from .ports import ElementType as ElementType
from .ports import Port as Port
from .ports import Precision as Precision
from .uses import Quantized as Quantized
from .uses import Runs as Runs

DYNAMIC_DIMS = frozenset({"b", "n", "m", "s", "N", "h", "w"})
"""The dimensions of shapes that are not constants of the model.

`b` pictures, `n` target tokens, `m` reference tokens, `s` = text + `n` + `m`, `N` steps, `h` x `w` a grid of tokens.
"""

PIXELS_PER_TOKEN = 16
"""The pixels that a token spans along one side: 8 of the VAE, times 2 of packing."""


class Operators(str, Enum):
    """Says in which form attention, norms, rotary embedding and convolutions are in a graph.

    Attributes:
        SINGLE: One operator each (opset 23; ONNX Runtime, TensorRT from 10.15, TensorRT-RTX).
        DECOMPOSED: Products and elementwise operators (opset 20; TensorRT from 10.12).
        ONNXRUNTIME: The denoiser's are ONNX Runtime's own, with what it can fuse (opset 23 and com.microsoft; nothing
            else runs them); elsewhere as SINGLE.
        FUSED: The denoiser's and the autoencoder's are functions of standard operators, for which there are kernels of
            ours on CUDA (opset 23); elsewhere as SINGLE.
    """

    SINGLE = "single"
    DECOMPOSED = "decomposed"
    ONNXRUNTIME = "onnxruntime"
    FUSED = "fused"

    @property
    def opset(self) -> int:
        return 20 if self is Operators.DECOMPOSED else 23

    def of(self, component: Component) -> Operators:
        """Return the form that a component's graph has of this."""
        special = self in (Operators.ONNXRUNTIME, Operators.FUSED)
        return Operators.SINGLE if special and self not in component.onnxruntime.operators else self


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeUse:
    """Says how a component fares with ONNX Runtime.

    Attributes:
        operators: The forms that its graph can have beside those of standard operators.
        recordable: True if a CUDA graph can record it. ONNX Runtime waits for an event in the middle of those that it
            cannot.
        values: What its activations grow with.
        held_per_value: How many activations the CUDA provider holds at most for each of those values, measured at full
            size on an H200 (docs/measurements/2026-11-21-h200-bench.md).
        held_fused: The same with kernels of fused operators (docs/measurements/2026-11-28-h100-fused.md).
    """

    operators: frozenset[Operators] = frozenset()
    recordable: bool = True
    values: GrowsWith = GrowsWith.NONE
    held_per_value: int = 0
    held_fused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Describes one traced network.

    Attributes:
        name: What its graph, its plans and messages are called by.
        part: The network of the checkpoint that its weights come from.
        runs: How often a request runs it.
        inputs: What it reads, in the graph's order.
        outputs: What it writes, in the graph's order.
        tokenizer: True if it reads what a tokenizer of its own makes of a prompt.
        dedicated_attention: True if attention in 16 bits must have a kernel of its own in a built engine: made of
            several, it writes a matrix of all tokens by all tokens.
        warns_of_cut: True if a prompt that its tokenizer cuts is worth a warning. CLIP cuts every long one.
        onnxruntime: How it fares with ONNX Runtime.
        quantized: What a recipe may change of it.
        trace_cost: What tracing takes for each of its tensors, against other components: a progress bar's unit.
        feature: The feature of bundles that have it; "" if all do.
        optional_outputs: What it also writes in bundles that have the port's feature.
    """

    name: str
    part: str
    runs: Runs
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tokenizer: bool = False
    dedicated_attention: bool = False
    warns_of_cut: bool = False
    onnxruntime: OnnxRuntimeUse = OnnxRuntimeUse()
    quantized: Quantized = Quantized.NOTHING
    trace_cost: float = 1.0
    feature: str = ""
    optional_outputs: tuple[Port, ...] = ()

    @property
    def batched(self) -> bool:
        """True if a request's pictures go through it together.

        What runs once for a prompt or a picture is cached or too large, so a batch never reaches it.
        """
        return self.runs in (Runs.REQUEST, Runs.STEP)

    def runs_in(self, num_steps: int) -> int:
        """Return how often a request for one picture runs it."""
        return num_steps if self.runs is Runs.STEP else 1

    @property
    def ports(self) -> tuple[Port, ...]:
        return self.inputs + self.outputs

    @property
    def given_inputs(self) -> tuple[Port, ...]:
        """The inputs that requests give."""
        return tuple(port for port in self.inputs if not port.kept)

    @property
    def kept_inputs(self) -> tuple[Port, ...]:
        """The inputs that stay from request to request: the matrices of swapped LoRAs."""
        return tuple(port for port in self.inputs if port.kept)

    def with_kept(self, ports: Iterable[Port]) -> Component:
        """Return the component with further inputs that stay from request to request."""
        return replace(self, inputs=(*self.inputs, *ports))

    def of_schema(self, schema: int, features: Collection[str] = ()) -> Component:
        """Return the component with those ports alone that it has in bundles of a schema, with these features."""
        inputs, outputs = (
            tuple(port for port in ports if port.since <= schema) for ports in (self.inputs, self.outputs)
        )
        further = tuple(port for port in self.optional_outputs if port.feature in features and port not in outputs)
        return replace(self, inputs=inputs, outputs=outputs + further)


def _ports(element_type: ElementType, *, since: int = 0, feature: str = "", **dims: str) -> tuple[Port, ...]:
    return tuple(Port(name, element_type, tuple(text.split()), since, feature) for name, text in dims.items())


_FUSED = frozenset({Operators.FUSED})
_FLOAT, _INT, _BYTE, _OWN = ElementType.FLOAT32, ElementType.INT32, ElementType.UINT8, ElementType.ACTIVATION

STEP_CACHE = "step_cache"
"""The feature of bundles whose steps can be cached: the denoiser gives a residual, and `CACHED_DENOISER` takes it."""
_STEP_INPUTS = (
    _ports(_FLOAT, latents="b n channels")
    + _ports(_OWN, text_tokens="b text_length hidden", reference_tokens="b m hidden", modulation="b vectors hidden")
    + _ports(_FLOAT, cos="s rope_width", sin="s rope_width", step_size="one")
    + _ports(_FLOAT, since=3, previous_velocity="b n channels", velocity_weights="two")
    + _ports(_FLOAT, since=3, keep="b n channels", clean="b n channels", noise="b n channels", next_sigma="one")
)
_STEP_OUTPUTS = _ports(_FLOAT, next_latents="b n channels") + _ports(_FLOAT, since=3, velocity="b n channels")

COMPONENTS: Mapping[str, Component] = {
    component.name: component
    for component in (
        Component(
            name="clip",
            part="clip",
            runs=Runs.PROMPT,
            inputs=_ports(_INT, input_ids="b clip_length"),
            outputs=_ports(_FLOAT, pooled="b pooled_width"),
            tokenizer=True,
            onnxruntime=OnnxRuntimeUse(recordable=False),
        ),
        Component(
            name="t5",
            part="t5",
            runs=Runs.PROMPT,
            inputs=_ports(_INT, input_ids="b text_length"),
            outputs=_ports(_FLOAT, text="b text_length text_width"),
            tokenizer=True,
            warns_of_cut=True,
            quantized=Quantized.WEIGHTS,
        ),
        Component(
            name="vae_encoder",
            part="vae",
            runs=Runs.REFERENCE,
            inputs=_ports(_BYTE, image="b 16*h 16*w rgb"),
            outputs=_ports(_FLOAT, reference="b m channels"),
            onnxruntime=OnnxRuntimeUse(
                operators=_FUSED, values=GrowsWith.REFERENCE, held_per_value=480, held_fused=140
            ),
        ),
        Component(
            name="conditioner",
            part="transformer",
            runs=Runs.REQUEST,
            inputs=_ports(_FLOAT, timesteps="N", guidance="b", pooled="b pooled_width")
            + _ports(_FLOAT, text="b text_length text_width", reference="b m channels"),
            outputs=_ports(
                _OWN, modulation="N b vectors hidden", text_tokens="b text_length hidden", reference_tokens="b m hidden"
            ),
        ),
        Component(
            name="denoiser",
            part="transformer",
            runs=Runs.STEP,
            inputs=_STEP_INPUTS,
            outputs=_STEP_OUTPUTS,
            optional_outputs=_ports(_OWN, since=3, feature=STEP_CACHE, residual="b n hidden"),
            dedicated_attention=True,
            onnxruntime=OnnxRuntimeUse(
                operators=_FUSED | {Operators.ONNXRUNTIME}, values=GrowsWith.TOKENS, held_per_value=40, held_fused=12
            ),
            quantized=Quantized.PRODUCTS,
            trace_cost=2.0,
        ),
        Component(
            name="vae_decoder",
            part="vae",
            runs=Runs.PICTURE,
            inputs=_ports(_FLOAT, latents="b h w channels"),
            outputs=_ports(_BYTE, image="b 16*h 16*w rgb") + _ports(_FLOAT, mean="b"),
            onnxruntime=OnnxRuntimeUse(operators=_FUSED, values=GrowsWith.PICTURE, held_per_value=1024, held_fused=236),
        ),
    )
}
"""The components of every bundle."""

DENOISER = COMPONENTS["denoiser"]
"""The component that computes a whole step: its graph's type is the transformer's, and its products are quantized."""

CACHED_DENOISER = Component(
    name="cached_denoiser",
    part=DENOISER.part,
    runs=Runs.STEP,
    inputs=_STEP_INPUTS + _ports(_OWN, residual="b n hidden"),
    outputs=_STEP_OUTPUTS,
    dedicated_attention=True,
    onnxruntime=DENOISER.onnxruntime,
    feature=STEP_CACHE,
)
"""The component that computes a step's first block and final layer, with the residual of the last whole step between.

It is never quantized: it takes the place of whole steps, and its weights are a hundredth of theirs.
"""

KNOWN_COMPONENTS: Mapping[str, Component] = {**COMPONENTS, CACHED_DENOISER.name: CACHED_DENOISER}
"""All components that a bundle may have."""
