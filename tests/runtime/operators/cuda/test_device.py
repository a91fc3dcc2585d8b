"""Where a device's kernels find their constants."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from kontext_trt.runtime.operators.cuda.device import KernelDevice


def test_scales_lie_where_cublaslt_takes_them():
    """At multiples of 16 bytes; elsewhere it says that it supports none of its own algorithms."""
    device, written = KernelDevice.__new__(KernelDevice), dict[int, bytes]()
    device.cuda = cast(Any, SimpleNamespace(malloc=lambda size: 1 << 20))
    device.launcher = cast(Any, SimpleNamespace(recording=lambda stream: False, write=written.__setitem__))
    device.stream, device._constants, device._block = cast(Any, None), {}, 0
    addresses = [device.constant(value) for value in (0.5, 0.25, 0.5, 2.0)]
    assert [address - (1 << 20) for address in addresses] == [0, 16, 0, 32]
    assert list(written) == [1 << 20, (1 << 20) + 16, (1 << 20) + 32]
