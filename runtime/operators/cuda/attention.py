"""Computes attention by cuDNN, in bfloat16 or FP8, where its operands lie and where its result is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....engine.errors import ExecutorError
from .cudnn import Cudnn
from .device import KernelDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Describes attention of (b, queries, h * d) over (b, keys, h * d), contiguous; queries come scaled.

    Rows of the result begin `stride` values apart.
    """

    pictures: int
    queries: int
    keys: int
    heads: int
    width: int
    stride: int
    fp8: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """Holds the addresses of a call.

    The scales are those of FP8 operands, addresses too: what each is multiplied by, and what the result is multiplied
    by before it is rounded.
    """

    q: int
    k: int
    v: int
    result: int
    q_scale: int = 0
    k_scale: int = 0
    v_scale: int = 0
    result_inverse: int = 0


class Attention:
    """Computes attention on a device."""

    def __init__(self, device: KernelDevice, cudnn: Cudnn) -> None:
        self._device, self._cudnn = device, cudnn
        self._graphs: dict[AttentionShape, _Graph] = {}
        self._amax = device.cuda.malloc(256)

    def __call__(self, shape: AttentionShape, call: AttentionCall) -> None:
        """Enqueue attention."""
        if shape not in self._graphs:
            self._graphs[shape] = self._made(shape)
        graph = self._graphs[shape]
        addresses = {"q": call.q, "k": call.k, "v": call.v, "o": call.result}
        if shape.fp8:
            constant = self._device.constant
            addresses |= {"dq": call.q_scale, "dk": call.k_scale, "dv": call.v_scale, "so": call.result_inverse}
            addresses |= {
                "ss": constant(448.0),
                "ds": constant(1 / 448),
                "amax_s": self._amax,
                "amax_o": self._amax + 128,
            }
        pack = {graph.tensors[name]: address for name, address in addresses.items()}
        graph.graph.execute(pack, graph.workspace, handle=self._cudnn.handle)

    def _made(self, shape: AttentionShape) -> _Graph:
        if self._device.recording:
            raise ExecutorError("attention of this shape runs for the first time while a graph is recorded")
        cudnn, types = self._cudnn.library, self._cudnn.library.data_type
        kind = types.FP8_E4M3 if shape.fp8 else types.BFLOAT16
        graph = self._cudnn.graph(kind)
        tensors: dict[str, Any] = {}
        for name, tokens in (("q", shape.queries), ("k", shape.keys), ("v", shape.keys)):
            dims, strides = self._layout(shape, tokens, shape.heads * shape.width)
            tensors[name] = graph.tensor(name=name, dim=dims, stride=strides, data_type=kind)
        operands = {name: tensors[name] for name in "qkv"}
        if shape.fp8:
            for name in ("dq", "dk", "dv", "ds", "ss", "so"):
                tensors[name] = graph.tensor(name=name, dim=[1] * 4, stride=[1] * 4, data_type=types.FLOAT)
            result, _, *rest = graph.sdpa_fp8(
                **operands,
                descale_q=tensors["dq"],
                descale_k=tensors["dk"],
                descale_v=tensors["dv"],
                descale_s=tensors["ds"],
                scale_s=tensors["ss"],
                scale_o=tensors["so"],
                generate_stats=False,
                attn_scale=1.0,
            )
            for name, tensor in zip(("amax_s", "amax_o"), rest, strict=True):
                tensor.set_output(True).set_dim([1] * 4).set_stride([1] * 4).set_data_type(types.FLOAT)
                tensors[name] = tensor
        else:
            result, _ = graph.sdpa(**operands, generate_stats=False, attn_scale=1.0)
        dims, strides = self._layout(shape, shape.queries, shape.stride)
        tensors["o"] = result.set_output(True).set_dim(dims).set_stride(strides).set_data_type(kind)
        try:
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A])
            graph.check_support()
            graph.build_plans()
        except Exception as error:  # cuDNN has an exception type of its own for each step
            raise ExecutorError(f"cuDNN has no attention for {shape}: {error}") from error
        size = graph.get_workspace_size()
        return _Graph(graph=graph, tensors=tensors, workspace=self._device.cuda.malloc(size) if size else self._amax)

    def _layout(self, shape: AttentionShape, tokens: int, stride: int) -> tuple[list[int], list[int]]:
        dims = [shape.pictures, shape.heads, tokens, shape.width]
        return dims, [tokens * stride, shape.width, stride, 1]

    def forget(self) -> None:
        """Free what is kept of each shape; the device must have finished with it."""
        for graph in self._graphs.values():
            if graph.workspace != self._amax:
                self._device.cuda.free(graph.workspace)
        self._graphs.clear()

    def close(self) -> None:
        """Free what the library and the graphs hold."""
        self.forget()
        self._device.cuda.free(self._amax)


@dataclass(slots=True, kw_only=True)
class _Graph:
    """Holds cuDNN's graph of a shape, its tensors by name, and the address of its workspace."""

    graph: Any
    tensors: dict[str, Any]
    workspace: int
