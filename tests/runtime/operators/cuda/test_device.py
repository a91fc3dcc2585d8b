"""Where a device's kernels find their constants, and the streams that run beside its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from simulated_cuda import SimulatedCuda

from kontext_trt.runtime.operators.cuda.device import KernelDevice
from kontext_trt.runtime.operators.cuda.enqueuing import Enqueuing


def test_scales_lie_where_cublaslt_takes_them():
    """At multiples of 16 bytes; elsewhere it says that it supports none of its own algorithms."""
    device, written = KernelDevice.__new__(KernelDevice), dict[int, bytes]()
    device.cuda = cast(Any, SimpleNamespace(malloc=lambda size: 1 << 20))
    device.launcher = cast(Any, SimpleNamespace(recording=lambda stream: False, write=written.__setitem__))
    device.stream, device._constants, device._block = cast(Any, None), {}, 0
    addresses = [device.constant(value) for value in (0.5, 0.25, 0.5, 2.0)]
    assert [address - (1 << 20) for address in addresses] == [0, 16, 0, 32]
    assert list(written) == [1 << 20, (1 << 20) + 16, (1 << 20) + 32]


def test_what_runs_on_a_lane_waits_for_what_was_before_and_is_waited_for_where_it_is_joined():
    cuda = SimulatedCuda()
    device = KernelDevice.__new__(KernelDevice)
    device.cuda, device.stream = cast(Any, cuda), cuda.stream()
    device._kept, device._scratch, device._constants, device._lanes, device._block = {}, {}, {}, {}, 0
    lane, ran = device.lane("keys"), list[str]()
    assert device.lane("keys") is lane
    assert device.lane("queries").stream is not lane.stream

    def note(name: str, to: Enqueuing) -> None:
        on = to.stream
        to.enqueue(lambda: cuda.enqueue(lambda: ran.append(name), on))

    to = Enqueuing(device)
    note("before", to)
    with to.beside(lane):
        assert to.stream_address == cuda.stream_address(lane.stream)
        note("beside", to)
    note("meanwhile", to)
    to.join(lane)
    note("after", to)
    cuda.synchronize(device.stream)
    assert set(ran[:3]) == {"before", "beside", "meanwhile"}
    assert ran.index("before") < ran.index("beside")
    assert ran[3:] == ["after"]
    for launch in to.launches:
        launch()
    cuda.synchronize(device.stream)
    assert ran[:4] == ran[4:]
    device.close()
    assert cuda.open_handles == 1, "but for the executor's stream"


def test_scratch_memory_is_freed_when_the_device_has_finished_with_it():
    cuda = SimulatedCuda()
    device = KernelDevice.__new__(KernelDevice)
    device.cuda, device.stream = cast(Any, cuda), cuda.stream()
    device._kept, device._scratch, device._constants, device._lanes, device._block = {}, {}, {}, {}, 0
    for size in (1000, 5000, 3000):
        small = device.scratch(size)
    kept = device.keep(100)
    device.scratch(2000, "means")
    assert device.size_bytes == cuda.allocated == 1000 + 5000 + 2000 + 100
    cuda.enqueue(lambda: cuda.check(small, 5000), device.stream)
    device.free_scratch()
    assert (cuda.lost, cuda.allocated, device.scratches_freed) == (None, 100, 1)
    device.scratch(500)
    assert device.size_bytes == 600
    device.give_back(kept)
    device.close()
    assert cuda.allocated == 0
