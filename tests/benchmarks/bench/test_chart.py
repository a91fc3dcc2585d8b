"""A report's chart."""

from __future__ import annotations

import io

import msgspec
import numpy as np
from made_runs import made_run, spread
from PIL import Image

from kontext_trt.benchmarks.bench.chart import CHARACTERS, COLOURS, draw
from kontext_trt.benchmarks.bench.sections import STAGES
from kontext_trt.benchmarks.figures import png


def test_bars_stay_in_the_picture():
    """Stages' medians may add up to more than the median total."""
    run = made_run("kontext-trt", 100.0)
    short = msgspec.structs.replace(run, warm=dict(run.warm) | {"total": spread(10.0)})
    pixels = np.asarray(Image.open(io.BytesIO(png(draw([short])))))
    assert (pixels[:, -40:] == 255).all()
    assert (pixels[:, :-40] != 255).any()


def test_a_chart_says_how_long_stages_and_requests_take():
    """Times of each stage that has room, the total of each bar, the unit, and what each colour is."""
    figure = draw([made_run("kontext-trt", 100.0), made_run("other", 150.0)])
    (axes,), (legend,) = figure.axes, figure.legends
    words = [text.get_text() for text in axes.texts]
    assert {"400", "600", "80", "541", "741"} <= set(words)
    assert "20" not in words, "no room"
    assert axes.get_xlabel() == "milliseconds, median of 3 requests"
    assert axes.get_ylabel() == "engine"
    assert figure.get_suptitle() == "Where the time of a warm request goes; at the end of each bar the total"
    stages = ["tokenize", "text", "encode", "denoise", "decode"]
    assert [text.get_text() for text in legend.get_texts()] == stages
    assert set(COLOURS) == set(STAGES)


def test_below_its_title_a_chart_says_what_ran_where():
    about = ["an H200", f"1024x1024: {'a long prompt ' * 20}", "bundle abc"]
    figure = draw([made_run("kontext-trt", 100.0)], about)
    said = figure.axes[0].get_title(loc="left")
    assert said.splitlines()[0] == "an H200"
    assert said.endswith("\nbundle abc")
    assert max(map(len, said.splitlines())) <= CHARACTERS
    assert figure.get_figheight() > draw([made_run("kontext-trt", 100.0)]).get_figheight()


def test_a_chart_leaves_matplotlibs_own_figures_alone():
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    png(draw([made_run("kontext-trt", 100.0)]))
    assert plt.get_fignums() == before
