"""Classifiers: a tiny network that says how red a picture is, and whatever does not fit one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from kontext_trt import ClassifierOptions, Content, ContentRefused, ImageClassifier, OptionError, Stage
from kontext_trt.engine.errors import ExecutorError
from kontext_trt.runtime.filters.screen import Screen

LABELS = ("red", "green", "blue")


def write_means(path: Path, *, shape: tuple = (1, 3, 8, 8), number: int = TensorProto.FLOAT, scores: int = 3) -> Path:
    """A network whose score per label is the mean of that colour, times 10."""
    axes = (2, 3) if shape[1] == 3 else (1, 2)
    factor = np.array(10, helper.tensor_dtype_to_np_dtype(number))
    nodes = [
        helper.make_node("ReduceMean", ["picture", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "factor"], ["scores"]),
    ]
    if len(shape) == 2:
        nodes = [helper.make_node("Mul", ["picture", "factor"], ["scores"])]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("picture", number, list(shape))],
        [helper.make_tensor_value_info("scores", number, [1, scores])],
        [numpy_helper.from_array(np.array(axes, np.int64), "axes"), numpy_helper.from_array(factor, "factor")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def judged(classifier: ImageClassifier, colour: str | tuple, size: tuple = (20, 30)) -> tuple[bool, str]:
    verdict = classifier.check(Content(stage=Stage.OUTPUT, prompt="x", picture=Image.new("RGB", size, colour)))
    return verdict.allowed, verdict.reason


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_means(tmp_path / "means.onnx")


def test_a_label_refuses_from_the_threshold_on(model: Path) -> None:
    red = ImageClassifier(model, ClassifierOptions(labels=LABELS, refuse=("red",), threshold=0.9))
    assert (red.name, red.stages) == ("means.onnx", {Stage.INPUT, Stage.OUTPUT})
    assert judged(red, "red") == (False, "red 1.00, refused from 0.9 on")
    assert judged(red, "blue") == (True, "")
    assert judged(red, (255, 255, 0)) == (True, "")


@pytest.mark.parametrize(
    ("scores", "colour", "reason"),
    [
        ("softmax", (255, 255, 0), "1 0.50, refused from 0.4 on"),
        ("sigmoid", (255, 255, 0), "1 1.00, refused from 0.4 on"),
        ("none", (0, 10, 0), ""),
        ("none", (0, 12, 0), "1 0.47, refused from 0.4 on"),
    ],
)
def test_scores_are_made_as_the_options_say(model: Path, scores: str, colour: tuple, reason: str) -> None:
    options = ClassifierOptions.beside(model, refuse=("1",), threshold=0.4, scores=scores)
    assert judged(ImageClassifier(model, options), colour) == (not reason, reason)


def test_what_lies_beside_the_network_says_how_it_is_used(tmp_path: Path) -> None:
    path = write_means(tmp_path / "means.onnx", shape=("n", "h", "w", 3), number=TensorProto.FLOAT16)
    described = {"labels": LABELS, "refuse": ["green"], "size": [4, 6], "layout": "nhwc", "scores": "none"}
    described |= {"mean": [0.5, 0.5, 0.5], "std": [5, 5, 5], "threshold": 0.99}
    path.with_suffix(".json").write_text(json.dumps(described))
    options = ClassifierOptions.beside(path)
    assert (options.size, options.threshold) == ((4, 6), 0.99)
    assert ClassifierOptions.beside(path, threshold=0.5, refuse=None).refuse == ("green",)
    classifier = ImageClassifier(path, options)
    assert judged(classifier, (128, 255, 255)) == (False, "green 1.00, refused from 0.99 on")


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("{", "describes no classifier"),
        ('{"threshold": 2}', "describes no classifier"),
        ('{"layout": "chw"}', "describes no classifier"),
        ('{"labels": ["a"]}', "gives 3 scores, and there are 1 labels"),
        ("{}", "refuses nothing: say which labels do, of 0, 1, 2"),
        ('{"labels": ["red", "green", "blue"]}', "refuses nothing: say which labels do, of red, green, blue"),
        ('{"refuse": ["x"]}', "has no label 'x'; it has 0, 1, 2"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(model: Path, described: str, message: str) -> None:
    model.with_suffix(".json").write_text(described)
    with pytest.raises(OptionError, match=message):
        ImageClassifier(model, ClassifierOptions.beside(model))


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.1])
def test_a_threshold_is_a_score(model: Path, threshold: float) -> None:
    with pytest.raises(OptionError, match="a threshold is a score from 0 to 1"):
        ClassifierOptions(threshold=threshold)
    with pytest.raises(OptionError, match="a classifier cannot be used like that"):
        ClassifierOptions.beside(model, threshold=threshold)


def test_networks_of_other_forms_are_refused(tmp_path: Path) -> None:
    options = ClassifierOptions(labels=LABELS, refuse=("red",))
    for name, shape, message in (
        ("flat", (1, 3), "takes tensor.float. .*; a classifier takes one picture"),
        ("any", (1, 3, "h", "w"), "takes pictures of any size; say which in any.json: size"),
    ):
        with pytest.raises(OptionError, match=message):
            ImageClassifier(write_means(tmp_path / f"{name}.onnx", shape=shape), options)
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    for name in ("junk", "missing"):
        with pytest.raises(OptionError, match="cannot be opened as an ONNX network"):
            ImageClassifier(tmp_path / f"{name}.onnx", options)


def test_answers_that_are_no_scores_refuse(model: Path) -> None:
    beyond = ImageClassifier(model, ClassifierOptions.beside(model, labels=LABELS, refuse=("red",), scores="none"))
    content = Content(stage=Stage.OUTPUT, prompt="x", picture=Image.new("RGB", (8, 8), "blue"))
    with pytest.raises(ExecutorError, match="gave scores beyond 0 to 1"):
        beyond.check(content)
    endless = ImageClassifier(model, ClassifierOptions.beside(model, labels=LABELS, refuse=("red",), std=(1e-39,) * 3))
    with pytest.raises(ExecutorError, match="or some that are no numbers"):
        endless.check(content)
    with pytest.raises(ContentRefused, match="it failed, which refuses"):
        Screen([beyond]).release([("x", content.picture)])
