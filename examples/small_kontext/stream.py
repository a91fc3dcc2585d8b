"""Draws samples by the hundred in worker processes, and keeps pools of them on the training device."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ...benchmarks.quality.editbench.samples import TEXT_TO_IMAGE, WEIGHTS, draw_sample
from ...benchmarks.quality.editbench.scene import SIZES, SQUARE, Size
from .hints import letter_roles, places
from .vocabulary import CLIP_LENGTH, T5_LENGTH

SQUARE_SHARE = 0.6
"""The share of square samples; the other sizes share the rest evenly."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Describes samples of one shape: (width, height), with a reference or without."""

    size: Size
    edits: bool

    @property
    def share(self) -> float:
        """The bucket's share of all samples."""
        size = SQUARE_SHARE if self.size == SQUARE else (1 - SQUARE_SHARE) / (len(SIZES) - 1)
        captions = WEIGHTS[TEXT_TO_IMAGE] / sum(WEIGHTS.values())
        return size * (1 - captions if self.edits else captions)


NUM_TOKENS = max(width * height for width, height in SIZES) // 256
"""The number of tokens of the largest picture."""
BUCKETS = tuple(Bucket(size, edits) for size in SIZES for edits in (True, False))
EDITS = tuple(task for task in WEIGHTS if task != TEXT_TO_IMAGE)


@dataclass(frozen=True, slots=True)
class Texts:
    """Holds tokenizers of the `tokenizers` library as JSON, so that workers need nothing else."""

    clip: str
    t5: str

    def encoders(self) -> tuple[Tokenizer, Tokenizer]:
        """Return the tokenizers, padded and cut to CLIP's 77 and T5's length."""
        clip, t5 = Tokenizer.from_str(self.clip), Tokenizer.from_str(self.t5)
        for tokenizer, length, padding in ((clip, CLIP_LENGTH, "<|endoftext|>"), (t5, T5_LENGTH, "<pad>")):
            tokenizer.enable_truncation(length)
            tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id(padding), pad_token=padding)
        return clip, t5


@dataclass(slots=True)
class Chunk:
    """Holds samples of one bucket.

    Attributes:
        bucket: Their shape.
        target: (k, H, W, 3) uint8.
        reference: (k, H, W, 3) uint8, (0, ...) for captions.
        clip: CLIP's ids (k, 77) int16.
        t5: T5's ids (k, 56) int16.
        roles: (k, 56) int8, see `hints.py`.
        places: (k, NUM_TOKENS, 10) int8, see `hints.py`.
    """

    bucket: Bucket
    target: Tensor
    reference: Tensor
    clip: Tensor
    t5: Tensor
    roles: Tensor
    places: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "bucket"}

    def pin_memory(self) -> Chunk:
        return Chunk(self.bucket, **{name: tensor.pin_memory() for name, tensor in self.tensors().items()})


def draw_chunk(
    first_seed: int, count: int, bucket: Bucket, texts: tuple[Tokenizer, Tokenizer], held_out: bool
) -> Chunk:
    """Return samples of the seeds from `first_seed` on."""
    rng = Random(first_seed)
    weights = [WEIGHTS[task] for task in EDITS]
    samples = []
    for seed in range(first_seed, first_seed + count):
        task = rng.choices(EDITS, weights)[0] if bucket.edits else TEXT_TO_IMAGE
        samples.append(draw_sample(seed, held_out=held_out, task=task, size=bucket.size))
    width, height = bucket.size
    target = np.empty((count, height, width, 3), np.uint8)
    reference = np.empty((count if bucket.edits else 0, height, width, 3), np.uint8)
    for i, sample in enumerate(samples):
        target[i] = sample.target()
        if bucket.edits:
            reference[i] = sample.reference()
    instructions = [sample.instruction for sample in samples]
    clip, t5 = (tokenizer.encode_batch(instructions) for tokenizer in texts)
    arrays = {
        "clip": np.array([one.ids for one in clip], np.int16),
        "t5": np.array([one.ids for one in t5], np.int16),
        "roles": np.array([letter_roles(one.tokens) for one in t5], np.int8),
        "places": np.stack([places(sample, NUM_TOKENS) for sample in samples]),
    }
    return Chunk(
        bucket,
        target=torch.from_numpy(target),
        reference=torch.from_numpy(reference),
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
    )


class Chunks(IterableDataset[Chunk]):
    """Draws endless chunks.

    Worker w of n takes every n-th run of seeds; a resumed training names another `epoch`.
    """

    def __init__(self, texts: Texts, count: int, epoch: int, buckets: tuple[Bucket, ...] = BUCKETS) -> None:
        self.texts, self.count, self.epoch, self.buckets = texts, count, epoch, buckets

    def __iter__(self) -> Iterator[Chunk]:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        encoders = self.texts.encoders()
        shares = [bucket.share for bucket in self.buckets]
        run = worker
        while True:
            first = self.epoch * 10**9 + run * self.count
            bucket = Random(first + 1).choices(self.buckets, shares)[0]
            yield draw_chunk(first, self.count, bucket, encoders, held_out=False)
            run += num_workers


class Stream:
    """Passes chunks from worker processes through a queue; it is a context manager."""

    def __init__(self, dataset: Chunks, num_workers: int, *, pin: bool) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin,
            prefetch_factor=4 if num_workers else None,
        )
        self._queue: queue.Queue[Chunk] = queue.Queue(maxsize=16)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(timeout=10)

    def _fill(self) -> None:
        try:
            for chunk in self._loader:
                while not self._stopped.is_set():
                    try:
                        self._queue.put(chunk, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if self._stopped.is_set():
                    return
        except BaseException as error:  # raised where chunks are taken
            self._error = error

    def ready(self) -> Chunk | None:
        """Return a chunk, if one is there; raise RuntimeError if a worker failed."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            if self._error is not None:
                raise RuntimeError("a process that draws samples failed") from self._error
            return None

    def next(self) -> Chunk:
        """Return the next chunk, however long it takes; raise RuntimeError if a worker failed."""
        while (chunk := self.ready()) is None:
            time.sleep(0.005)
        return chunk


@dataclass(slots=True)
class Ring:
    """Keeps samples on a device; new ones overwrite the oldest."""

    capacity: int
    device: torch.device
    values: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0
    """The number of all that were ever added."""

    def add(self, values: dict[str, Tensor]) -> None:
        """Append along the first dimension; every value has the same length, or none."""
        count = max(len(value) for value in values.values())
        if not self.values:
            self.capacity = max(self.capacity, count)
            self.values = {
                name: torch.empty(
                    (self.capacity if len(value) else 0, *value.shape[1:]), dtype=value.dtype, device=self.device
                )
                for name, value in values.items()
            }
        start = self.count % self.capacity
        first = min(count, self.capacity - start)
        for name, value in values.items():
            if len(value):
                ring = self.values[name]
                ring[start : start + first].copy_(value[:first], non_blocking=True)
                ring[: count - first].copy_(value[first:], non_blocking=True)
        self.count += count

    def __len__(self) -> int:
        return min(self.count, self.capacity)

    def draw(self, count: int) -> dict[str, Tensor]:
        """Return `count` samples at random, with repetition."""
        chosen = torch.randint(len(self), (count,), device=self.device)
        return {name: ring[chosen] if len(ring) else ring for name, ring in self.values.items()}


@dataclass(slots=True)
class Pool:
    """Keeps pictures of many shapes: one ring per bucket."""

    capacity: int
    device: torch.device
    rings: dict[Bucket, Ring] = field(default_factory=dict)

    def add(self, bucket: Bucket, values: dict[str, Tensor]) -> None:
        if bucket not in self.rings:
            self.rings[bucket] = Ring(round(self.capacity * bucket.share), self.device)
        self.rings[bucket].add(values)

    @property
    def count(self) -> int:
        """The number of all samples that were ever added."""
        return sum(ring.count for ring in self.rings.values())

    def choose(self, rng: Random) -> Bucket:
        """Return a bucket that holds something, by its share."""
        ready = tuple(self.rings)
        return rng.choices(ready, [bucket.share for bucket in ready])[0]
