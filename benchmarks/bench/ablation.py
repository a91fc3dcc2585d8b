"""Measures what each of our own gains is worth: each is switched off by itself, and the picture must stay what it was.

hoisting        steps run the conditioner, too, each with one timestep
pruning         a denoiser whose last block computes every token (`unpruned.write_unpruned`)
request graph   calls enqueued one by one; on a CUDA device only
caches          prompt and reference encoded anew for every request
uint8 pictures  one picture brought to the networks and back as float32, converted on the host, four times the bytes;
                graphs keep their borders, so this counts conversions and copies and no kernel of a network
kernels         fused operators of a family run their bodies (`fused_ablation`); where kernels of ours run only
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from ...engine.bundle.bundle import Bundle
from ...engine.errors import ExecutorError, KontextError
from ...runtime.device.cuda import CudaPython
from ...runtime.device.executor import DeviceExecutor
from ...runtime.executors.fused_kernels import fused_components
from ...runtime.executors.open import open_executor
from ...runtime.executors.options import AnyExecutor, ExecutorOptions
from ...runtime.flow.executor import Executor
from ...runtime.inputs.pictures import read_picture
from ...runtime.kontext import Kontext
from ...runtime.outputs.result import Result
from .agreement import likeness
from .engine_process import heard_warnings
from .fused_ablation import families_of, predicted_ms, without_kernels
from .picture_borders import DeviceCarrier, border_ms, carry_on_host
from .records import Ablated, Ablation, Case, Ceilings
from .request import request_of
from .sections import PRUNING
from .undivided import UndividedExecutor

STEP = "one step"
BORDERS, ABOUT_BORDERS = "uint8 pictures", "one picture to the networks and back"
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
    ceilings: Ceilings | None = None,
) -> Ablation:
    """Measure a request with every gain and without each.

    Prompt and reference come from the caches but where those are what is switched off. Without `unpruned` there is no
    row for pruning, and none for the request graph where there are no graphs. Each way of running is opened by itself
    and closed before the next. One that fails, or whose picture is not the one with all gains, is a row that says so:
    within rounding (`Likeness`), and with the same latents, bit for bit, where the same kernels run. Those of
    fused products may not: which of the library's is fastest is measured anew in each opening.

    Args:
        bundle: The bundle that is run.
        options: The executor.
        case: The request.
        image: The file of its reference, if it has one.
        repeat: Measured requests for each way of running.
        unpruned: A bundle of the same weights whose last block computes every token.
        ceilings: What the GPU reaches, for predictions.

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

    rows = _Rows(best)

    def whole(of: Bundle) -> list[Result]:
        return run(_opened_alike(of, options, executor.name), of)

    rows.compare(
        "hoisting",
        "condition and all steps",
        _loop,
        lambda: run(UndividedExecutor(open_executor(bundle, options)), bundle),
    )
    if unpruned is not None:
        rows.compare(PRUNING, STEP, _step, lambda: whole(unpruned))
    fused = bool(fused_components(bundle))
    reasons = list(without_kernels(bundle, executor, _device_id(options))) if fused else []
    if on_device and options.graphs:
        enqueued, about = replace(options, graphs=False), "a request, encoders cached"
        exact = not fused or bool(reasons)  # kernels measure their products anew in each opening
        rows.compare("request graph", about, _total, lambda: run(open_executor(bundle, enqueued), bundle), exact=exact)
    rows.compare("caches", "a repeated request", _total, lambda: encoded, exact=True)
    rows.attempt(BORDERS, ABOUT_BORDERS, lambda: _border_row(best[-1], options, repeat, on_device=on_device))
    if fused:
        rows.notes += [f"no rows for kernels: {'; '.join(reasons)}"] if reasons else []
        for family, names in () if reasons else families_of(bundle).items():
            rows.compare_bodies(
                family,
                lambda names=names: run(open_executor(bundle, options, without_kernels=names), bundle),
                lambda names=names: predicted_ms(bundle, case, names, ceilings),
            )
    return Ablation(rows=tuple(rows.rows), notes=tuple(rows.notes))


@dataclass(slots=True)
class _Rows:
    """Collects rows beside the results with every gain; what fails is a row that says so."""

    best: Sequence[Result]
    rows: list[Ablated] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def attempt(self, gain: str, about: str, make: Callable[[], Ablated]) -> None:
        try:
            self.rows.append(make())
        except KontextError as error:
            self.rows.append(Ablated(gain=gain, about=about, failure=str(error)))

    def compare(
        self, gain: str, about: str, value: _Value, other: Callable[[], list[Result]], *, exact: bool = False
    ) -> None:
        self.attempt(gain, about, lambda: _row(gain, about, value, self.best, other(), exact=exact))

    def compare_bodies(self, gain: str, other: Callable[[], list[Result]], predict: Callable[[], float | None]) -> None:
        """Add a row of a step, with what was predicted for it and notes of what was warned of meanwhile."""
        predicted = None
        try:
            predicted = predict()
        except KontextError as error:
            self.notes.append(f"nothing is predicted for {gain}: {error}")
        with heard_warnings() as warned:
            self.compare(gain, STEP, _step, other)
        self.notes += [f"without {gain}: {words}" for words in dict.fromkeys(warned)]
        self.rows[-1] = msgspec.structs.replace(self.rows[-1], predicted_ms=predicted)


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


def _device_id(options: ExecutorOptions) -> int:
    return 0 if isinstance(options, AnyExecutor) else options.device_id


def _border_row(result: Result, options: ExecutorOptions, repeat: int, *, on_device: bool) -> Ablated:
    """Measure borders on the host for executors there, else through page-locked memory to the device and back."""
    picture = np.asarray(result.outputs[0].image)
    if on_device:
        cuda = CudaPython(_device_id(options))
        with DeviceCarrier(cuda, picture) as carry:
            as_bytes, as_floats = border_ms(picture, carry, WARM_UP + repeat)
    else:
        as_bytes, as_floats = border_ms(picture, carry_on_host, WARM_UP + repeat)
    return Ablated(gain=BORDERS, about=ABOUT_BORDERS, with_ms=as_bytes, without_ms=as_floats)
