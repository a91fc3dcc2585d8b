"""What a request may be, before any model is there to answer it."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Fit, ImageError, Request, RequestError, Sampling
from kontext_trt.runtime.inputs.request import MAX_PICTURES, SamplingKeywords


def test_keywords_are_sampling_s_fields():
    assert set(SamplingKeywords.__annotations__) == {field.name for field in dataclasses.fields(Sampling)}


def test_defaults_leave_all_to_the_bundle():
    request = Request(prompt="make it blue")
    assert (request.image, request.fit, request.prompts) == (None, Fit.RESIZE, ("make it blue",))
    assert request.sampling == Sampling()
    assert request.sampling.seeds == ()


def test_numpy_s_numbers_are_kept_as_python_s():
    sampling = Sampling(steps=np.int64(4), guidance=np.float32(2.5), seed=np.array([1, 2]), size=(np.int32(32), 48))
    assert sampling == Sampling(steps=4, guidance=2.5, seed=(1, 2), size=(32, 48))
    assert [type(value) for value in (sampling.steps, sampling.guidance, *sampling.seeds)] == [int, float, int, int]


def test_one_in_a_list_is_one():
    assert Sampling(seed=[7]) == Sampling(seed=7)
    assert Request(prompt=["a"]) == Request(prompt="a")


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, not 0"),
        ({"steps": True}, "steps must be a whole number"),
        ({"guidance": float("nan")}, "guidance must be a number from 0 to 1000, not nan"),
        ({"guidance": "2"}, "guidance must be a number"),
        ({"seed": -1}, r"a seed must be a whole number from 0 to 2\^64 - 1, not -1"),
        ({"size": (100, 100)}, "size 100x100 is not possible"),
        ({"noise": [[0.0]]}, "noise must be a NumPy array of float32, not list"),
    ],
)
def test_sampling_out_of_range_is_refused(keywords: dict, words: str):
    with pytest.raises(RequestError, match=words):
        Sampling(**keywords)


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"prompt": " "}, RequestError, "a prompt must be a text that says what to do"),
        ({"prompt": []}, RequestError, "a prompt and a seed at least, not 0 and 1"),
        ({"prompt": "x", "sampling": Sampling(seed=[])}, RequestError, "a prompt and a seed at least, not 1 and 0"),
        ({"prompt": "x", "fit": "stretch"}, RequestError, "fit must be one of resize, pad, crop, not 'stretch'"),
        ({"prompt": "x", "image": 3}, ImageError, "a picture must be a path.* not int"),
        (
            {"prompt": ["x", "y"], "sampling": Sampling(seed=range(MAX_PICTURES // 2 + 1))},
            RequestError,
            "up to 1000 pictures, not 1,002",
        ),
    ],
)
def test_requests_that_cannot_be_are_refused(keywords: dict, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        Request(**keywords)


def test_a_request_cannot_be_changed():
    request = Request(prompt="x", image=Image.new("RGB", (4, 4)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.prompt = "y"  # pyright: ignore[reportAttributeAccessIssue]
