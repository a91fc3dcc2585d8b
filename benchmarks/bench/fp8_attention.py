"""Calls the runtime's attention in FP8 on torch's tensors, for the GPU's ceilings: torch has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...runtime.device.cuda import CudaPython
from ...runtime.operators.cuda.attention import Attention, AttentionCall, AttentionShape
from ...runtime.operators.cuda.cudnn import Cudnn
from ...runtime.operators.cuda.device import KernelDevice


@contextmanager
def fp8_attention(torch: Any, shape: tuple[int, int, int, int], device: str) -> Iterator[Callable[[], None]]:
    """Give what enqueues attention of (batch, heads, tokens, head width), on the stream that is torch's meanwhile.

    Raises:
        KontextError: A package is missing, or cuDNN has no such attention on this GPU.
    """
    batch, heads, tokens, width = shape
    cuda = CudaPython()
    stream = cuda.stream()
    try:
        major, minor = torch.cuda.get_device_capability()
        kernels = KernelDevice(cuda, stream, f"sm_{major}{minor}")
        cudnn = Cudnn(kernels)
        attention = Attention(kernels, cudnn)
        try:
            random = (torch.randn(batch, tokens, heads * width, device=device) for _ in range(3))
            q, k, v = (values.to(torch.float8_e4m3fn) for values in random)
            result = torch.empty_like(q)
            one = kernels.constant(1.0)
            call = AttentionCall(
                q=q.data_ptr(),
                k=k.data_ptr(),
                v=v.data_ptr(),
                result=result.data_ptr(),
                q_scale=kernels.constant(width**-0.5),
                k_scale=one,
                v_scale=one,
                result_inverse=one,
            )
            described = AttentionShape(
                pictures=batch,
                queries=tokens,
                keys=tokens,
                heads=heads,
                width=width,
                stride=heads * width,
                fp8=True,
            )
            torch.cuda.synchronize()
            with torch.cuda.stream(torch.cuda.ExternalStream(cuda.stream_address(stream))):
                yield lambda: attention(described, call)
            torch.cuda.synchronize()
        finally:
            attention.close()
            cudnn.close()
            kernels.close()
    finally:
        cuda.destroy_stream(stream)
