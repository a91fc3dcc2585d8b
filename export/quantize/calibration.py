"""Keeps what calibration saw: for each activation that may be quantized, how large it gets and how often.

It is one JSON file that can be inspected, compared, continued and used again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from ...engine.bundle.bundle import MANIFEST
from ...engine.documents import Count, read_json_file
from ...engine.errors import QuantizationError
from ...engine.system.files import atomic_file
from ...runtime.inputs.request import Sampling
from ...version import __version__
from ..emulate.torch_device import TorchDevice

SCHEMA = 2
"""The schema of this version; since 2, the ranges of attention's queries are those of scaled ones."""
MAX_BYTES = 64 << 20
"""The largest file that is read; that of the whole denoiser takes 1 MB."""
BINS_PER_OCTAVE = 16
BIN_SHIFT = 19
"""The number of bits by which a float32's bits, shifted to the right, number its bin.

What is left is 8 bits of exponent, then 4 of mantissa.
"""
NUM_BINS = 1 << 31 - BIN_SHIFT
"""The number of bins of all magnitudes, the endless one and what is no number included."""
PERCENTILES = (99.0, 99.9, 99.99, 99.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """Holds the options of one calibration.

    Attributes:
        steps: Steps per sample; None takes the bundle's default (28).
        seed: The first sample's seed; each sample has one of its own, counted from it.
        device: Where torch computes.
        limit: Ends after so many samples.

    Raises:
        RequestError: No request has so many steps, or such a seed.
        QuantizationError: There would be no sample.
    """

    steps: int | None = None
    seed: int = 0
    device: TorchDevice = TorchDevice.AUTO
    limit: int | None = None

    def __post_init__(self) -> None:
        Sampling(steps=self.steps, seed=self.seed)
        if self.limit is not None and self.limit < 1:
            raise QuantizationError(f"a calibration takes at least one sample, not a limit of {self.limit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Holds what was seen of one activation.

    Attributes:
        amax: The largest magnitude.
        tensors: The number of tensors that it is the largest of.
        values: How many of their values are in the histogram.
        first_bin: The number of the histogram's first bin.
        counts: The histogram: 16 bins per octave of magnitudes, the same for everybody.
    """

    amax: Annotated[float, Meta(ge=0.0, le=3.5e38)]
    tensors: Count
    values: Count
    first_bin: Annotated[int, Meta(ge=0, lt=NUM_BINS)]
    counts: Annotated[tuple[Count, ...], Meta(max_length=NUM_BINS)]

    def percentile(self, percent: float) -> float:
        """Return the magnitude that so many percent of all values do not exceed: a bin's upper end, at most `amax`."""
        reached = np.cumsum(np.asarray(self.counts, np.int64))
        index = int(np.searchsorted(reached, percent / 100 * self.values))
        return min(bin_end(self.first_bin + index), self.amax)

    def merged(self, other: Observation) -> Observation:
        first = min(self.first_bin, other.first_bin)
        last = max(one.first_bin + len(one.counts) for one in (self, other))
        counts = np.zeros(last - first, np.int64)
        for one in (self, other):
            counts[one.first_bin - first :][: len(one.counts)] += np.asarray(one.counts, np.int64)
        return Observation(
            amax=max(self.amax, other.amax),
            tensors=self.tensors + other.tensors,
            values=self.values + other.values,
            first_bin=first,
            counts=tuple(counts.tolist()),
        )


def bin_end(index: int) -> float:
    """Return the upper end of a bin."""
    return float(np.array((index + 1) << BIN_SHIFT, np.uint32).view(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Describes a sample that was run.

    Attributes:
        key: Covers picture, instruction, seed and steps.
        picture: The picture's file name, "" for text to image.
        instruction: What was asked for.
    """

    key: str
    picture: str
    instruction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Names a picture that could not be used, and says why."""

    picture: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Holds what was seen in the samples that were run so far.

    Attributes:
        model_sha256: Which weights were run.
        steps: Steps per sample.
        samples: Those that were run.
        skipped: Those that could not be used.
        observations: What was seen, by the activation's name.
        complete: False until the last sample is done.
        schema: The version of the file's form.
        producer: The version of this project that began it.
    """

    model_sha256: str
    steps: int
    samples: tuple[Done, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    observations: Mapping[str, Observation] = field(default_factory=dict)
    complete: bool = False
    schema: int = SCHEMA
    producer: str = f"kontext-trt {__version__}"

    @property
    def sha256(self) -> str:
        """The hash of what was seen, not of who saw it or in how many goes."""
        return hashlib.sha256(msgspec.json.encode(self.observations, order="deterministic")).hexdigest()

    def ranges(self, percentile: float | None = None) -> dict[str, float]:
        """Return the magnitude of each activation that quantization must reach: the largest seen, or a percentile."""
        return {
            name: one.amax if percentile is None else one.percentile(percentile)
            for name, one in self.observations.items()
        }

    def with_sample(self, sample: Done, seen: Mapping[str, Observation]) -> Calibration:
        observations = dict(self.observations)
        for name, one in seen.items():
            observations[name] = observations[name].merged(one) if name in observations else one
        return replace(self, samples=(*self.samples, sample), observations=observations)

    def save(self, path: Path) -> None:
        """Write the calibration as JSON to `path`, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(msgspec.json.encode(self) + b"\n")

    @classmethod
    def open(cls, path: Path) -> Calibration:
        """Read a calibration from its file.

        Raises:
            QuantizationError: The file cannot be read, is no calibration, or one of another version.
        """
        if path.is_dir():
            what = "a bundle: see it with kontext-trt inspect" if (path / MANIFEST).is_file() else "a folder"
            raise QuantizationError(
                f"{path} is {what}. A calibration is a file, BUNDLE.calibration.json, as kontext-trt calibrate writes"
            )

        def unread(reason: str) -> QuantizationError:
            return QuantizationError(f"calibration {path} cannot be read: {reason}")

        def foreign(reason: str) -> QuantizationError:
            return QuantizationError(f"{path} is not a calibration ({reason}); make one with: kontext-trt calibrate")

        found = read_json_file(path, cls, at_most=MAX_BYTES, unread=unread, fail=foreign)
        if found.schema != SCHEMA:
            raise QuantizationError(f"{path} has schema {found.schema}, this version reads {SCHEMA}; calibrate again")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Describes an activation whose range differs between two calibrations; None where one of them never saw it."""

    name: str
    before: float | None
    after: float | None

    @property
    def ratio(self) -> float:
        """The factor by which the one is larger than the other; infinite where one is missing."""
        if not self.before or not self.after:
            return float("inf")
        return max(self.before, self.after) / min(self.before, self.after)


def differences(before: Calibration, after: Calibration, percentile: float | None = None) -> Iterator[Change]:
    """Yield what changed, the largest change first."""
    one, other = before.ranges(percentile), after.ranges(percentile)
    changes = (Change(name=name, before=one.get(name), after=other.get(name)) for name in one | other)
    yield from sorted((change for change in changes if change.before != change.after), key=lambda item: -item.ratio)
