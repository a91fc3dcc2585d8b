"""What each of our own gains is worth: each is switched off by itself, and the picture must stay what it was.

hoisting        steps run the conditioner, too, each with one timestep
pruning         a denoiser whose last block computes every token (`unpruned.write_unpruned`)
request graph   calls enqueued one by one; on a CUDA device only
caches          prompt and reference encoded anew for every request
uint8 pictures  one picture brought to the networks and back as float32, converted on the host, four times the bytes;
                graphs keep their borders, so this counts conversions and copies and no kernel of a network
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...engine.bundle import Bundle
from ...engine.errors import ExecutorError
from ...export.compare.metrics import psnr_db
from ...runtime.device.cuda import CudaPython
from ...runtime.device.executor import DeviceExecutor
from ...runtime.executor import Executor
from ...runtime.executors import open_executor
from ...runtime.kontext import Kontext
from ...runtime.options import AnyExecutor, ExecutorOptions
from ...runtime.result import Result
from .agreement import LEAST_PSNR_DB
from .picture_borders import DeviceCarrier, border_ms, carry_on_host
from .records import Ablated, Ablation, Case
from .request import ask
from .sections import PRUNING
from .undivided import UndividedExecutor

WARM_UP = 2
"""Requests before the measured ones: one in the cold, one that records graphs."""
_Value = Callable[[Result], float]


def ablate(
    bundle: Bundle,
    options: ExecutorOptions,
    case: Case,
    image: Path | None = None,
    *,
    repeat: int = 3,
    unpruned: Bundle | None = None,
) -> Ablation:
    """Measure `case`, of the reference `image` if it has one, with every gain and without each, `repeat` times each.

    Prompt and reference come from the caches but where those are what is switched off. Without `unpruned` there is no
    row for pruning, and none for the request graph where there are no graphs. Each way of running is opened by itself
    and closed before the next.

    Raises ExecutorError if a picture is not the one with all gains: bit for bit where the same kernels run, else within
    rounding (PSNR 30 dB), and what opening and running raise.
    """
    if (image is None) != (case.reference is None):
        raise ValueError("an ablation needs the reference's file if its case has a reference, and only then")

    def run(executor: Executor, of: Bundle, *, forget: bool = False) -> list[Result]:
        with Kontext(of, executor) as kontext:
            return _results(kontext, case, image, repeat, forget=forget)

    executor = open_executor(bundle, options)
    on_device = isinstance(executor, DeviceExecutor)
    with Kontext(bundle, executor) as kontext:
        best = _results(kontext, case, image, repeat)
        encoded = _results(kontext, case, image, repeat, forget=True)
    undivided = run(UndividedExecutor(open_executor(bundle, options)), bundle)
    rows = [_row("hoisting", "condition and all steps", _loop, best, undivided)]
    if unpruned is not None:
        whole = run(open_executor(unpruned, options), unpruned)
        rows.append(_row(PRUNING, "one step", _step, best, whole))
    if on_device and options.graphs:
        enqueued = run(open_executor(bundle, replace(options, graphs=False)), bundle)
        rows.append(_row("request graph", "a request, encoders cached", _total, best, enqueued, exact=True))
    rows.append(_row("caches", "a repeated request", _total, best, encoded, exact=True))
    rows.append(_border_row(best[-1], options, repeat, on_device=on_device))
    return Ablation(rows=tuple(rows))


def _results(kontext: Kontext, case: Case, image: Path | None, repeat: int, *, forget: bool = False) -> list[Result]:
    """Of the measured requests. The first ones warm up, and fill the caches."""
    results = []
    for _ in range(WARM_UP + repeat):
        if forget:
            kontext.forget()
        results.append(ask(kontext, case, image))
    return results[WARM_UP:]


def _row(
    gain: str, about: str, value: _Value, best: Sequence[Result], other: Sequence[Result], *, exact: bool = False
) -> Ablated:
    _check(gain, best[-1], other[-1], exact=exact)
    return Ablated(
        gain=gain,
        about=about,
        with_ms=statistics.median(map(value, best)),
        without_ms=statistics.median(map(value, other)),
    )


def _check(gain: str, best: Result, other: Result, *, exact: bool) -> None:
    for one, two in zip(best.outputs, other.outputs, strict=True):
        same = np.array_equal(one.latents, two.latents)
        found = psnr_db(np.asarray(one.image), np.asarray(two.image))
        if not same and (exact or found < LEAST_PSNR_DB):
            asked = "it must be the same" if exact else f"at least {LEAST_PSNR_DB:.0f} dB are asked"
            raise ExecutorError(f"without {gain} the picture is another: PSNR {found:.1f} dB, {asked}")


def _total(result: Result) -> float:
    return result.milliseconds["total"]


def _loop(result: Result) -> float:
    return result.milliseconds["condition"] + result.milliseconds["denoise"]


def _step(result: Result) -> float:
    return statistics.median(result.step_milliseconds)


def _border_row(result: Result, options: ExecutorOptions, repeat: int, *, on_device: bool) -> Ablated:
    """On the host for executors there, else through page-locked memory to the device and back."""
    picture = np.asarray(result.outputs[0].image)
    if on_device:
        cuda = CudaPython(0 if isinstance(options, AnyExecutor) else options.device_id)
        with DeviceCarrier(cuda, picture) as carry:
            as_bytes, as_floats = border_ms(picture, carry, WARM_UP + repeat)
    else:
        as_bytes, as_floats = border_ms(picture, carry_on_host, WARM_UP + repeat)
    return Ablated(
        gain="uint8 pictures", about="one picture to the networks and back", with_ms=as_bytes, without_ms=as_floats
    )
