"""The plot of a comparison: what its panels, axes and legends say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kontext_trt.benchmarks.figures import png
from kontext_trt.benchmarks.quality.noise import BlockError, LayerError
from kontext_trt.benchmarks.quality.plot import WORST, block_of, draw
from kontext_trt.benchmarks.quality.report import CaseReport, Comparison, StepError

DOUBLE = ("attn.to_q", "attn.to_k", "ff.net.0.proj", "ff.net.2", "ff_context.net.2")
SINGLE = ("attn.to_q", "proj_mlp", "proj_out")
LONG = "make the cat orange and put it on a sofa, in the evening, beside a lamp that somebody left on " * 4


def full_size() -> Comparison:
    """As of the real model, 19 and 38 blocks; the first block's image stream has no error at all."""
    names = [f"transformer_blocks.{i}.{layer}" for i in range(19) for layer in DOUBLE]
    names += [f"single_transformer_blocks.{i}.{layer}" for i in range(38) for layer in SINGLE]
    names.append("proj_out")
    weights = [1 / (1 + i) for i in range(len(names))]
    blocks = [
        BlockError(block=f"transformer_blocks.{i}", stream=stream, sqnr_db=52 - i * (0.8 + 0.2 * (stream == "text")))
        for i in range(19)
        for stream in ("text", "image")
    ]
    blocks[1] = replace(blocks[1], sqnr_db=math.inf)
    blocks += [BlockError(block=f"single_transformer_blocks.{i}", stream="", sqnr_db=33 - i / 4) for i in range(38)]
    steps = tuple(StepError(step=n, sqnr_db=60 - n, cosine=1.0, relative=0.01) for n in range(1, 29))
    case = CaseReport(prompt=LONG, seed=0, image="cat.png", size=(1024, 1024), psnr_db=31, ssim=0.95, steps=steps)
    return Comparison(
        reference="a" * 64,
        other="b" * 64,
        recipe="nvfp4",
        executor="torch",
        cases=(case, replace(case, seed=1, prompt="Größe: 2 µm")),
        blocks=tuple(blocks),
        layers=tuple(
            LayerError(layer=name, noise=weight, share=weight / sum(weights), gain_db=0.1)
            for name, weight in zip(names, weights, strict=True)
        ),
        prediction_sqnr_db=30.0,
    )


@pytest.fixture(scope="module")
def figure() -> Figure:
    return draw(full_size(), "bundle", "bundle-nvfp4")


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def panel(figure: Figure, words: str) -> Axes:
    (found,) = (axes for axes in figure.axes if words in axes.get_title(loc="left"))
    return found


def test_the_title_says_what_is_compared(figure: Figure):
    title = figure.get_suptitle()
    assert title.startswith("What quantization costs: bundle-nvfp4 (nvfp4) beside bundle\n")
    assert "SQNR: the reference's energy over the difference's" in title


def test_each_kind_of_block_has_a_panel_of_its_own(figure: Figure):
    assert titles(figure) == [
        "Latents after each step",
        "Output of each double-stream block, all error up to there included",
        "Output of each single-stream block, all error up to there included",
        "Layers of double-stream blocks, each kind summed over the blocks",
        "Layers of single-stream blocks, each kind summed over the blocks",
        "Layers in no block",
        f"The {WORST} worst of 210 quantized layers",
    ]
    double, single = panel(figure, "each double-stream block"), panel(figure, "each single-stream block")
    assert [len(line.get_xdata()) for line in double.get_lines()] == [19, 19, 1]
    (line,) = single.get_lines()
    assert list(line.get_xdata()) == list(range(38)), "numbers of blocks are the model's own"


def test_every_axis_has_a_name_and_a_unit(figure: Figure):
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    assert {axes.get_ylabel() for axes in figure.axes[:3]} == {"SQNR, dB"}
    assert {axes.get_xlabel() for axes in figure.axes[3:]} == {"share of all layers' noise, %"}


def test_legends_name_each_line(figure: Figure):
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes[:3]]
    assert legends[0] == ["seed 0, make the cat orange\nand put it on a sofa, in ...", "seed 1, Größe: 2 µm"]
    assert legends[1] == ["text stream", "image stream", "no error at all"]
    assert legends[2] == ["both streams in one"]


def test_bars_are_kinds_of_layers_with_their_numbers(figure: Figure):
    bars = panel(figure, "Layers of single-stream")
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert set(names) == {f"{layer} (38 layers)" for layer in SINGLE}
    shares = sum(bar.get_width() for axes in figure.axes[3:6] for bar in axes.patches)
    assert shares == pytest.approx(100)
    worst = [label.get_text() for label in panel(figure, "worst").get_yticklabels()]
    assert worst[:2] == ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"]


def test_without_layers_there_are_lines_alone():
    assert len(draw(replace(full_size(), layers=()), "a", "b").axes) == 3


def test_it_is_written(figure: Figure):
    assert png(figure)[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("single_transformer_blocks.37.proj_out", ("single-stream", 37, "proj_out")),
        ("transformer_blocks.0", ("double-stream", 0, "")),
        ("proj_out", ("other", -1, "proj_out")),
    ],
)
def test_names_of_layers_say_where_they_are(name: str, found: tuple[str, int, str]):
    assert block_of(name) == found
