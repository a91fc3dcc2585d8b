"""Holds what a benchmark finds, as data: every record is one JSON line, told apart by `kind`.

Times are milliseconds, sizes bytes, rates operations or bytes per second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Holds percentiles of a measured time over `count` repetitions, in ms; the upper ones of few are interpolated."""

    p50: float
    p95: float
    p99: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of measured values; raise ValueError without any."""
        if not values:
            raise ValueError("a spread needs at least one measured value")
        p50, p95, p99 = (float(np.percentile(values, percent)) for percent in (50, 95, 99))
        return cls(p50=p50, p95=p95, p99=p99, least=min(values), most=max(values), count=len(values))


class Case(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="case"):
    """Describes the request that is measured.

    `size` is (width, height); `reference` the reference's, None for text to image. The batch is one prompt with `batch`
    seeds from `seed` on. `loras` are those that are swapped in, as FILE:SCALE; peers have none.
    """

    size: tuple[int, int]
    reference: tuple[int, int] | None
    steps: int
    batch: int
    seed: int
    guidance: float
    prompt: str
    loras: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.batch))


class Host(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="machine"):
    """Says where and with what a benchmark ran; `packages` are the versions of what took part."""

    date: str
    gpu: str | None
    driver: str | None
    gpu_bytes: int | None
    cpu: str
    cores: int
    python: str
    packages: Mapping[str, str]


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what NVML said of the GPU while requests ran: medians, and the most for power and temperature.

    `throttled` is the share of samples in which the driver held the clock down, for heat or power. None is what it does
    not tell.
    """

    samples: int
    sm_mhz: float | None
    memory_mhz: float | None
    power_w: float | None
    most_power_w: float | None
    most_celsius: float | None
    throttled: float | None


class ComponentMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a component's bytes on the device.

    `weights` is what loading took, `reckoned` what the residency plan sets aside for the component, activations
    included.
    """

    weights: int
    reckoned: int


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the bytes that a run took; on the CPU there are no device figures.

    `device_peak` is the most of the device's memory in use, by everybody, less what was in use before. `host_peak` is
    the process's resident memory, mapped weights included; `host_anonymous` is without them.
    """

    components: Mapping[str, ComponentMemory]
    arena: int | None
    buffers: int | None
    graphs: int | None
    device_peak: int | None
    host_peak: int
    host_anonymous: int


class EngineRun(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """Holds one engine's times for the case.

    `cold` are milliseconds of the first request in a fresh process and of what came before it (import, open, load),
    `warm` spreads over the repetitions: `total`, the stages, `step` over all steps. `host_gap` in it is the time of a
    request in which no stage ran. `devices` are the numbers of those that shared each request, none for one device.
    """

    engine: str
    executor: str
    bundle: str | None
    precision: str
    cold: Mapping[str, float]
    warm: Mapping[str, Spread]
    memory: Memory
    clocks: Clocks | None
    devices: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


PICTURES_DIFFER = "one seed's pictures differ in bits from request to request"
"""The note of a run whose pictures of one seed are not bit for bit the same."""


class Unmeasured(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="failure"):
    """Names an engine that could not be measured, and says why."""

    engine: str
    reason: str


class Agreement(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="agreement"):
    """Says how near two engines' first pictures are, of one request from one noise: before any speed is compared.

    Both figures are explained at `agreement.Likeness`.
    """

    one: str
    other: str
    psnr_db: float
    snr_db: float
    agree: bool


class Ceilings(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="ceilings"):
    """Holds what the GPU reached in the same run, measured on plain kernels.

    There are a device-to-device copy (bytes read and written per second), matrix products by number format and
    attention (operations per second). `how` says with what.
    """

    copy: float
    products: Mapping[str, float]
    attention: Mapping[str, float]
    how: str


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what one run of a component has to do, counted in its graph.

    `products` are the operations of matrix products and convolutions by number format, `attention` those of attention
    by itself. Bytes are weights (`weight_bytes`), and inputs and outputs (`io_bytes`), each once.
    """

    products: Mapping[str, float]
    attention: Mapping[str, float]
    weight_bytes: int
    io_bytes: int
    parameters: int


class StageLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Holds a stage beside its limit.

    `limit_ms` is the larger of arithmetic and traffic at the measured ceilings, `bound` what takes most of it
    ("products", "attention" or "traffic"); None without ceilings, or without the rates that `lacks` names.
    """

    work: Work
    limit_ms: float | None
    bound: str | None
    measured_ms: float | None
    share: float | None
    lacks: tuple[str, ...] = ()


class Roofline(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="roofline"):
    """Holds each stage beside its limit."""

    stages: Mapping[str, StageLimit]


class LoopWork(msgspec.Struct, frozen=True, kw_only=True):
    """Holds what a step has to do.

    There are parameters that it reads, operations, and bytes of weights and of all that products and attention move.
    """

    parameters: int
    operations: float
    weight_bytes: int
    traffic_bytes: int


class Hoisting(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="hoisting"):
    """Compares the work of three steps.

    They are a step of the undivided transformer, one that only leaves the conditioner out, and ours, whose last block
    is also pruned.
    """

    undivided: LoopWork
    hoisted: LoopWork
    pruned: LoopWork


class Ablated(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the medians of one gain switched off: `with_ms` and `without_ms` of what it is about.

    `predicted_ms` is what was predicted for their difference. Where it failed, both are None, and `failure` says why.
    """

    gain: str
    about: str
    with_ms: float | None = None
    without_ms: float | None = None
    predicted_ms: float | None = None
    failure: str = ""


class Ablation(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="ablation"):
    """Holds what each gain is worth; `notes` say what was not tried, and why."""

    rows: tuple[Ablated, ...]
    notes: tuple[str, ...] = ()


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the peak bytes on the device for one way of running: weights loaded at a time, activations, buffers.

    `executor` is whose rule or byte counts these are: "onnxruntime", or the target of plans.
    """

    executor: str = ""
    precision: str
    residency: str
    weights: int
    activations: int
    buffers: int
    peak: int
    moved: int


class Prediction(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="prediction"):
    """Holds what was predicted of a bundle's memory."""

    rows: tuple[Predicted, ...]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Compares bytes of a kind, as predicted and as measured."""

    what: str
    predicted: int
    measured: int


class MemoryCheck(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="memory check"):
    """Compares a run's memory with what was predicted for it."""

    executor: str
    precision: str
    residency: str
    rows: tuple[Checked, ...]


Record = (
    Case | Host | EngineRun | Unmeasured | Agreement | Ceilings
    | Roofline | Hoisting | Ablation | Prediction | MemoryCheck
)  # fmt: skip


def encode_lines(records: Sequence[Record]) -> bytes:
    """Return JSON lines, one per record."""
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def decode_lines(text: bytes) -> list[Record]:
    """Read records from JSON lines; raise msgspec.DecodeError for what is no record."""
    return [msgspec.json.decode(line, type=Record) for line in text.splitlines() if line.strip()]
