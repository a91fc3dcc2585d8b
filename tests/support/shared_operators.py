"""Operators that exchange, on devices: cases with inputs of all tokens, and nodes that hold one rank's or all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kontext_trt.runtime.device.cuda import CudaPython
from kontext_trt.runtime.device.graphs import RecordedGraph
from kontext_trt.runtime.flow.group import Group
from kontext_trt.runtime.flow.shares import Share, Shares
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cuda.device import KernelDevice
from kontext_trt.runtime.operators.cuda.kernels import Kernels
from kontext_trt.runtime.operators.definition import Definition, Kind, scale_of
from kontext_trt.runtime.operators.fused import FusedKernel
from kontext_trt.runtime.operators.kernels import Call, Input

REPEATED = (1 << 20) + 3
"""After how many values random inputs come again, which is no multiple of a row."""
Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    pictures: int
    shares: Shares
    heads: int
    width: int
    wide: int

    def tokens(self, kind: str, rank: int | None = None) -> NDArray[np.intp]:
        """The positions of a rank's tokens, or of all, in the text, the target, the picture, or the joint sequence."""
        text, target, reference = (np.arange(sum(part)) for part in self._parts)
        if rank is not None:
            share = Share(rank=rank, shares=self.shares)
            text, target, reference = text[share.text], target[share.target], reference[share.reference]
        pieces: dict[str, tuple[NDArray[np.intp], ...]] = {"text": (text,), "target": (target,)}
        pieces["image"] = target, sum(self.shares.target) + reference
        first = sum(self.shares.text)
        pieces["joint"] = text, *(first + piece for piece in pieces["image"])
        return np.concatenate(pieces[kind])

    @property
    def _parts(self) -> tuple[tuple[int, ...], ...]:
        return self.shares.text, self.shares.target, self.shares.reference


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    queries: str = "joint"
    sizes: str = "uneven"

    def kind(self, name: str) -> str:
        """Which tokens an input or output has; "" if it has none."""
        operator = DEFINITIONS[self.name].operator.name
        if operator == "JointHeads":
            return {"text": "text", "image": "image"}.get(name, "joint" if name in ("cos", "sin", *"qkv") else "")
        if operator == "Heads":
            rest = "joint" if name in ("x", "cos", "sin", "k", "v") else ""
            return self.queries if name == "q" or name.startswith("queried") else rest
        return self.queries if name in ("q", "x", "mixed", "both") else "joint" if name in ("k", "v") else ""


def cases() -> list[Case]:
    found = []
    for name, one in DEFINITIONS.items():
        operator, form = one.operator.name, one.format
        if operator in ("Attend", "AttendBesideGelu"):
            found += [Case(name, "joint"), *([] if form.branches else [Case(name, "target")])]
        elif operator in ("Heads", "JointHeads") and form.result and not form.branches:
            found += [Case(name, "target" if operator == "Heads" else "joint")]
    for name in ("Attend", "AttendBesideGelu"):
        found += [Case(name, sizes="full")]
        products = "_fp8" if name == "AttendBesideGelu" else ""
        found += [Case(f"{name}{products}{attention}_to_fp8", sizes="full") for attention in ("", "_fp8_attention")]
    return found


def all_sizes(ranks: int) -> dict[str, Sizes]:
    """Shares that no two ranks have the same of, and the usual ones of a full-size request."""
    uneven = Shares(
        text=tuple(9 + 2 * rank for rank in range(ranks)),
        target=tuple(70 - 9 * rank for rank in range(ranks)),
        reference=tuple(24 + 5 * (rank % 2) for rank in range(ranks)),
    )
    each = Shares(text=(512 // ranks,) * ranks, target=(4096 // ranks,) * ranks, reference=(4096 // ranks,) * ranks)
    return {
        "uneven": Sizes(
            pictures=2, shares=uneven, heads=2 * ranks, width=64, wide=160
        ),
        "full": Sizes(pictures=1, shares=each, heads=24, width=128, wide=12288),
    }  # fmt: skip


def arrays(case: Case, sizes: Sizes, seed: int) -> Arrays:
    """Random inputs of all tokens; those that are FP8 are values that it has."""
    definition, rng, found = DEFINITIONS[case.name], np.random.default_rng(seed), dict[str, NDArray[np.float32]]()
    hidden = sizes.heads * sizes.width
    outputs = sizes.wide if "Gelu" in definition.operator.name else hidden
    for name, kind in zip(definition.inputs, definition.input_kinds, strict=True):
        tokens, shape = case.kind(name), tuple[int, ...]()
        factor = 50.0 if kind is Kind.FP8 else 1.0
        if name.endswith(("cos", "sin")):
            shape = sizes.tokens(tokens).size, sizes.width // 2
        elif tokens:
            shape = sizes.pictures, sizes.tokens(tokens).size, hidden
        elif name.endswith("_norm"):
            shape = (sizes.width,)
        elif name.endswith("weight"):
            shape, factor = (outputs, hidden), factor * (1 if kind is Kind.FP8 else hidden**-0.5)
        elif name.endswith("bias"):
            shape = (outputs,)
        elif name.endswith(("down", "up")):
            shape, factor = ((hidden, 12) if name.endswith("down") else (12, outputs)), hidden**-0.25
        elif name == "q" and not definition.format.attention:
            factor *= sizes.width**-0.5
        values = np.resize(np.float32(factor) * rng.standard_normal(REPEATED, dtype=np.float32), shape)
        if name.endswith(("cos", "sin")):
            angles = np.arange(values.size, dtype=np.float32).reshape(shape)
            values = np.cos(angles) if name.endswith("cos") else np.sin(angles)
        elif name.endswith("_norm"):
            values = 1 + np.float32(0.1) * values
        elif name.endswith("weight_scale"):
            values = np.full(shape, 0.02 * hidden**-0.5, np.float32)
        found[name] = values
    return found


def attributes(definition: Definition, sizes: Sizes) -> dict[str, float | int]:
    found: dict[str, float | int] = dict.fromkeys(definition.scales, 0.02)
    if definition.format.attention:
        found["q_scale"] = 0.02 * sizes.width**-0.5
    return found | {name: sizes.heads for name in definition.operator.attributes if name == "num_heads"}


@cache
def fp8_values() -> NDArray[np.float32]:
    """What the codes of E4M3 stand for."""
    codes = np.arange(256)
    exponents, parts = codes >> 3 & 15, codes & 7
    values = np.where(exponents == 0, parts / 8 * 2.0**-6, (1 + parts / 8) * 2.0 ** (exponents - 7.0))
    values[codes & 127 == 127] = np.nan
    return np.where(codes > 127, -values, values).astype(np.float32)


@cache
def fp8_codes() -> NDArray[np.uint8]:
    """The code that is nearest to each bfloat16 value, by its bits."""
    known, values = fp8_values()[:127], np.arange(1 << 15, dtype=np.uint32) << 16
    codes = np.searchsorted((known[1:] + known[:-1]) / 2, values.view(np.float32))
    return np.concatenate((codes, codes + 128)).astype(np.uint8)


def encoded(values: NDArray[np.float32], kind: Kind) -> NDArray[Any]:
    if kind is Kind.FLOAT32:
        return np.ascontiguousarray(values, np.float32)
    cut = (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)
    return cut if kind is Kind.OWN else fp8_codes()[cut]


def decoded(data: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
    if kind is Kind.FP8:
        return fp8_values()[data]
    return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


class Memory:
    """The memory of a device that a case takes."""

    def __init__(self, cuda: CudaPython, stream: Any) -> None:
        self.cuda, self.stream = cuda, stream
        self._held: list[int] = []

    def allocate(self, size_bytes: int) -> int:
        self._held.append(self.cuda.malloc(max(size_bytes, 16)))
        return self._held[-1]

    def write(self, address: int, data: NDArray[Any]) -> None:
        data = np.ascontiguousarray(data)
        self._copy(address, data.ctypes.data, data.nbytes)

    def read(self, address: int, size_bytes: int) -> NDArray[np.uint8]:
        data = np.empty(size_bytes, np.uint8)
        self._copy(data.ctypes.data, address, size_bytes)
        return data

    def _copy(self, to: int, source: int, size_bytes: int) -> None:
        self.cuda.copy(to, source, size_bytes, self.stream)
        self.cuda.synchronize(self.stream)

    def close(self) -> None:
        for address in self._held:
            self.cuda.free(address)


class Ran:
    """A node with tensors of its own: those of one rank, or all."""

    def __init__(self, kernels: Kernels, case: Case, sizes: Sizes, memory: Memory, rank: int | None) -> None:
        self.definition = DEFINITIONS[case.name]
        self._kernel = FusedKernel(kernels, self.definition, attributes(self.definition, sizes))
        self._case, self._sizes, self._memory, self._rank = case, sizes, memory, rank
        self.stream = kernels.device.stream_address
        self.inputs: tuple[Input, ...] = ()
        self.outputs: dict[int, tuple[int, tuple[int, ...]]] = {}

    def give(self, values: Arrays) -> None:
        """Write inputs, to the same memory each time."""
        found = []
        for index, (name, kind) in enumerate(zip(self.definition.inputs, self.definition.input_kinds, strict=True)):
            whole, tokens = values[name], self._case.kind(name)
            if tokens and self._rank is not None:
                whole = np.take(whole, self._sizes.tokens(tokens, self._rank), axis=max(whole.ndim - 2, 0))
            data = encoded(whole, kind)
            address = self.inputs[index].address if self.inputs else self._memory.allocate(data.nbytes)
            self._memory.write(address, data)
            found.append(Input(address, whole.shape))
        self.inputs = tuple(found)

    def output(self, index: int, shape: tuple[int, ...]) -> int:
        if index not in self.outputs:
            self.outputs[index] = self._memory.allocate(2 * int(np.prod(shape))), shape
        assert self.outputs[index][1] == shape
        return self.outputs[index][0]

    def enqueue(self, *_: object) -> None:
        self._kernel(cast(Call, self))

    def poison(self) -> None:
        for address, shape in self.outputs.values():
            self._memory.write(address, np.full(2 * int(np.prod(shape)), 0x7F, np.uint8))

    def results(self) -> Arrays:
        found: Arrays = {}
        self._memory.cuda.synchronize(self._memory.stream)
        for index, name in enumerate(self.definition.operator.outputs):
            (address, shape), kind = self.outputs[index], self.definition.output_kinds[index]
            size = int(np.prod(shape)) * (1 if kind is Kind.FP8 else 2)
            found[name] = decoded(self._memory.read(address, size), kind).reshape(shape)
        return found

    def milliseconds(self, graph: RecordedGraph, repeats: int = 10) -> float:
        cuda, stream = self._memory.cuda, self._memory.stream
        start, end = cuda.event(), cuda.event()
        graph.launch(stream)
        cuda.record(start, stream)
        for _ in range(repeats):
            graph.launch(stream)
        cuda.record(end, stream)
        cuda.synchronize(stream)
        return cuda.milliseconds(start, end) / repeats


class Rank:
    """One of several that share the tokens of a case, and beside it a device that has all of them."""

    def __init__(self, cuda: CudaPython, stream: Any, group: Group) -> None:
        self.cuda, self.stream, self.group = cuda, stream, group
        major, minor = (
            cuda._call("cudaDeviceGetAttribute", getattr(cuda._runtime.cudaDeviceAttr, one), cuda.device)
            for one in ("cudaDevAttrComputeCapabilityMajor", "cudaDevAttrComputeCapabilityMinor")
        )
        self._fp8_attention = (int(major), int(minor)) >= (9, 0)
        self.kernels = Kernels(KernelDevice(cuda, stream, f"sm_{major}{minor}"), group)
        self.sizes = all_sizes(group.size)

    def cases(self) -> list[Case]:
        """Those that the device has kernels for."""
        return [one for one in cases() if self._fp8_attention or not DEFINITIONS[one.name].format.attention]

    def run(self, case: Case, *, recorded: bool = True) -> dict[str, Any]:
        """Compute a case twice with other values, the second time replayed from a graph if it is `recorded`."""
        sizes = self.sizes[case.sizes]
        row: dict[str, Any] = {"case": case.name, "queries": case.queries, "sizes": case.sizes, "limit": limit(case)}
        self.group.shares = sizes.shares
        with self._memory() as memory:
            ours = Ran(self.kernels, case, sizes, memory, self.group.rank)
            alone = Ran(self.kernels.alone(), case, sizes, memory, None)
            nodes, (first, second) = (ours, alone), (arrays(case, sizes, seed) for seed in (1, 2))
            for node in nodes:
                node.give(first)
                node.enqueue()
                node.enqueue()
            row["eager"] = self._error(case, sizes, ours, alone)
            if recorded:
                row |= self._recorded(case, sizes, ours, alone, second)
                return row
            for node in nodes:
                node.give(second)
                node.poison()
                node.enqueue()
            row["again"] = self._error(case, sizes, ours, alone)
            self.cuda.synchronize(self.stream)
        return row

    def _recorded(self, case: Case, sizes: Sizes, ours: Ran, alone: Ran, values: Arrays) -> dict[str, Any]:
        row: dict[str, Any] = {}
        nodes = ours, alone
        graphs = [RecordedGraph.record(self.cuda, self.stream, node.enqueue, 0, relaxed=True) for node in nodes]
        for node, graph in zip(nodes, graphs, strict=True):
            node.give(values)
            node.poison()
            graph.launch(self.stream)
            graph.launch(self.stream)
        row["graph"] = self._error(case, sizes, ours, alone)
        if case.sizes == "full":
            row["ms"], row["alone_ms"] = (one.milliseconds(of) for one, of in zip(nodes, graphs, strict=True))
        self.cuda.synchronize(self.stream)
        for graph in graphs:
            graph.close()
        return row

    @contextmanager
    def _memory(self) -> Iterator[Memory]:
        memory = Memory(self.cuda, self.stream)
        yield memory
        memory.close()

    def _error(self, case: Case, sizes: Sizes, ours: Ran, alone: Ran) -> float:
        """The largest relative error of an output, or of FP8 keys how far ranks disagree on the mean."""
        errors, wanted = [0.0], alone.results()
        for name, found in ours.results().items():
            right = np.take(wanted[name], sizes.tokens(case.kind(name), self.group.rank), axis=1)
            assert found.shape == right.shape, (name, found.shape, right.shape)
            difference = found - right
            if name == "k" and ours.definition.format.result:
                scale = float(attributes(ours.definition, sizes)[scale_of("k")])
                errors.append(self._disagreement(scale * difference.mean(axis=1)))
                continue
            hidden = sizes.heads * sizes.width  # after which a product stands beside attention
            for part in (np.s_[..., :hidden], np.s_[..., hidden:]) if name == "both" else (...,):
                errors.append(float(np.linalg.norm(difference[part]) / np.linalg.norm(right[part])))
        return float("inf") if any(map(np.isnan, errors)) else max(errors)

    def _disagreement(self, means: NDArray[np.float32]) -> float:
        """How far a rank's values are from the mean of all ranks', by `average` itself."""
        with self._memory() as memory:
            address = memory.allocate(means.nbytes)
            memory.write(address, means.astype(np.float32))
            self.group.average(address, means.size)
            mean = memory.read(address, means.nbytes).view(np.float32).reshape(means.shape)
        return float(np.sqrt(np.mean((means - mean) ** 2)))


def limit(case: Case) -> float:
    """What may differ: the last bits of attention, which may sum keys in another order; of rounded results, more."""
    form, operator = DEFINITIONS[case.name].format, DEFINITIONS[case.name].operator.name
    if operator in ("Heads", "JointHeads"):
        return 0.03
    return 0.1 if form.attention else 0.04 if form.result else 0.008


ERRORS = ("eager", "graph", "again")
"""The entries of a row that are errors."""


def joined(of: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """One row for all ranks, with the largest of what they measured."""
    return of[0] | {name: max(one[name] for one in of) for name in (*ERRORS, "ms") if name in of[0]}


def is_right(row: dict[str, Any]) -> bool:
    return max(row.get(name, 0.0) for name in ERRORS) < row["limit"]


def words(row: dict[str, Any]) -> str:
    times = f"{row['ms']:7.3f} ms, alone {row['alone_ms']:.3f}" if "ms" in row else ""
    errors = " ".join(f"{name} {row[name]:.1e}" for name in ERRORS if name in row)
    what = f"{row['case']} {row['queries']} {row['sizes']}"
    return f"{'ok   ' if is_right(row) else 'WRONG'} {what:62} {errors} of {row['limit']:.0e} {times}"
