"""Measures what each of our own gains is worth: each is switched off by itself, and the picture must stay what it was.

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
from PIL import Image

from ...engine.bundle.bundle import Bundle
from ...engine.errors import ExecutorError, KontextError
from ...runtime.device.cuda import CudaPython
from ...runtime.device.executor import DeviceExecutor
from ...runtime.executors.open import open_executor
from ...runtime.executors.options import AnyExecutor, ExecutorOptions
from ...runtime.flow.executor import Executor
from ...runtime.inputs.pictures import read_picture
from ...runtime.kontext import Kontext
from ...runtime.outputs.result import Result
from .agreement import likeness
from .picture_borders import DeviceCarrier, border_ms, carry_on_host
from .records import Ablated, Ablation, Case
from .request import request_of
from .sections import PRUNING
from .undivided import UndividedExecutor

WARM_UP = 2
"""The number of requests before the measured ones: one in the cold, one that records graphs."""
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
    """Measure a request with every gain and without each.

    Prompt and reference come from the caches but where those are what is switched off. Without `unpruned` there is no
    row for pruning, and none for the request graph where there are no graphs. Each way of running is opened by itself
    and closed before the next. One that fails, or whose picture is not the one with all gains, is a note instead of a
    row: within rounding (`Likeness`), and with the same latents, bit for bit, where the same kernels run.

    Args:
        bundle: The bundle that is run.
        options: The executor.
        case: The request.
        image: The file of its reference, if it has one.
        repeat: Measured requests for each way of running.
        unpruned: A bundle of the same weights whose last block computes every token.

    Raises:
        ValueError: A reference without a file, or a file without a reference.
        KontextError: Opening or running with all gains fails.
    """
    if (image is None) != (case.reference is None):
        raise ValueError("an ablation needs the reference's file if its case has a reference, and only then")

    picture = None if image is None else read_picture(image)

    def run(executor: Executor, of: Bundle) -> list[Result]:
        with Kontext(of, executor) as kontext:
            return _results(kontext, case, picture, repeat)

    executor = open_executor(bundle, options)
    on_device = isinstance(executor, DeviceExecutor)
    with Kontext(bundle, executor) as kontext:
        best = _results(kontext, case, picture, repeat)
        encoded = _results(kontext, case, picture, repeat, forget=True)

    rows: list[Ablated] = []
    notes: list[str] = []

    def attempt(gain: str, make: Callable[[str], Ablated]) -> None:
        try:
            rows.append(make(gain))
        except KontextError as error:
            notes.append(f"no row for {gain}: {error}")

    def undivided(gain: str) -> Ablated:
        results = run(UndividedExecutor(open_executor(bundle, options)), bundle)
        return _row(gain, "condition and all steps", _loop, best, results)

    def whole(gain: str) -> Ablated:
        assert unpruned is not None
        results = run(_opened_alike(unpruned, options, executor.name), unpruned)
        return _row(gain, "one step", _step, best, results)

    def enqueued(gain: str) -> Ablated:
        results = run(open_executor(bundle, replace(options, graphs=False)), bundle)
        return _row(gain, "a request, encoders cached", _total, best, results, exact=True)

    attempt("hoisting", undivided)
    if unpruned is not None:
        attempt(PRUNING, whole)
    if on_device and options.graphs:
        attempt("request graph", enqueued)
    attempt("caches", lambda gain: _row(gain, "a repeated request", _total, best, encoded, exact=True))
    attempt("uint8 pictures", lambda gain: _border_row(gain, best[-1], options, repeat, on_device=on_device))
    return Ablation(rows=tuple(rows), notes=tuple(notes))


def _opened_alike(bundle: Bundle, options: ExecutorOptions, name: str) -> Executor:
    """Open an executor for a bundle like the one of this name; raise ExecutorError if it gets another."""
    executor = open_executor(bundle, options)
    if executor.name != name:
        executor.close()
        raise ExecutorError(
            f"{bundle.path} is run by {executor.name}, the other bundle by {name}: build plans for both, or choose an "
            "executor that runs both"
        )
    return executor


def _results(
    kontext: Kontext, case: Case, image: Image.Image | None, repeat: int, *, forget: bool = False
) -> list[Result]:
    """Return the results of the measured requests; the first ones, which warm up and fill the caches, are left out."""
    results = []
    for _ in range(WARM_UP + repeat):
        if forget:
            kontext.forget()
        results.append(kontext.run(request_of(case, image)))
    return results[WARM_UP:]


def _row(
    gain: str, about: str, value: _Value, best: Sequence[Result], other: Sequence[Result], *, exact: bool = False
) -> Ablated:
    _check(best[-1], other[-1], exact=exact)
    return Ablated(
        gain=gain,
        about=about,
        with_ms=statistics.median(map(value, best)),
        without_ms=statistics.median(map(value, other)),
    )


def _check(best: Result, other: Result, *, exact: bool) -> None:
    for one, two in zip(best.outputs, other.outputs, strict=True):
        first, second = np.asarray(one.image), np.asarray(two.image)
        found = likeness(first, second)
        if exact and not np.array_equal(one.latents, two.latents):
            raise ExecutorError(f"without it the latents are others, and must be the same: {found.describe()}")
        if not found.agree:
            raise ExecutorError(f"without it the picture is another: {found.describe()}")


def _total(result: Result) -> float:
    return result.milliseconds["total"]


def _loop(result: Result) -> float:
    return result.milliseconds["condition"] + result.milliseconds["denoise"]


def _step(result: Result) -> float:
    return statistics.median(result.step_milliseconds)


def _border_row(gain: str, result: Result, options: ExecutorOptions, repeat: int, *, on_device: bool) -> Ablated:
    """Measure borders on the host for executors there, else through page-locked memory to the device and back."""
    picture = np.asarray(result.outputs[0].image)
    if on_device:
        cuda = CudaPython(0 if isinstance(options, AnyExecutor) else options.device_id)
        with DeviceCarrier(cuda, picture) as carry:
            as_bytes, as_floats = border_ms(picture, carry, WARM_UP + repeat)
    else:
        as_bytes, as_floats = border_ms(picture, carry_on_host, WARM_UP + repeat)
    return Ablated(gain=gain, about="one picture to the networks and back", with_ms=as_bytes, without_ms=as_floats)
