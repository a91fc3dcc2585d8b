"""A report's chart."""

from __future__ import annotations

import msgspec
import numpy as np
from made_runs import made_run, spread

from kontext_trt.benchmarks.bench.chart import draw


def test_bars_stay_in_the_picture():
    """Stages' medians may add up to more than the median total."""
    run = made_run("kontext-trt", 100.0)
    short = msgspec.structs.replace(run, warm=dict(run.warm) | {"total": spread(10.0)})
    pixels = np.asarray(draw([short]))
    assert (pixels[:, -40:] == 255).all()
