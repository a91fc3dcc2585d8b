"""What of a request each rank is given, holds and gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kontext_trt import Bundle
from kontext_trt.runtime.flow.shared_tensors import (
    WHOLE,
    WHOLE_LATENTS,
    given_by,
    givers,
    own_inputs,
    picture_rank,
    reference_rank,
    slowest,
    whole_output,
    workspace_tensors,
)
from kontext_trt.runtime.flow.shares import Share, divide
from kontext_trt.runtime.flow.tensors import RequestShape, empty, request_tensors

SHAPE = RequestShape(
    num_prompts=2, num_seeds=2, grid=(7, 9), references=((3, 5), (2, 2), (1, 1)), num_steps=3, masked=True
)
DIVIDED = {
    *("latents_even", "latents_odd", "first_latents", "velocity_even", "velocity_odd", "zeros", "keep", "clean"),
    *("noise", "text_tokens", "reference_tokens"),
}


def shares_of(bundle: Bundle, shape: RequestShape, size: int) -> list[Share]:
    rows, columns = shape.grid
    text = bundle.manifest.model.dims.text_length
    shares = divide(text, rows * columns, shape.num_reference_tokens, size)
    return [Share(rank=rank, shares=shares) for rank in range(size)]


def numbered(bundle: Bundle, shape: RequestShape) -> dict[str, np.ndarray]:
    """All tensors of a request, each with values of its own."""
    made = {}
    for number, (name, spec) in enumerate(request_tensors(bundle, shape).items()):
        array = empty(spec)
        array[...] = (np.arange(array.size).reshape(array.shape) + number).astype(array.dtype)
        made[name] = array
    return made


@pytest.mark.parametrize("size", [2, 3, 8])
def test_what_ranks_are_given_and_give_is_the_whole(bundle: Bundle, size: int):
    whole, text = numbered(bundle, SHAPE), bundle.manifest.model.dims.text_length
    divided = [own_inputs(whole, share, text_length=text, num_references=3) for share in shares_of(bundle, SHAPE, size)]
    tables = {name: whole.pop(name) for name in ("cos", "sin")}
    for name, array in whole.items():
        given = {rank: divided[rank][name] for rank in givers(name, SHAPE.batch, 3, size)}
        assert np.array_equal(whole_output(name, given, size), array), name
        assert all(one.flags.c_contiguous for one in given.values()), name
        assert (len({one[name].shape for one in divided if name in one}) > 1) == (
            name in DIVIDED and bool(array.shape[1] % size)
        ), name
    for name, table in tables.items():
        rows = np.concatenate([one[name] for one in divided])
        assert np.array_equal(rows[np.argsort(rows[:, 0])], table), "which grow from row to row"


def test_what_was_encoded_earlier_is_given_to_the_rank_that_would_encode_it(bundle: Bundle):
    whole, text = numbered(bundle, SHAPE), bundle.manifest.model.dims.text_length
    divided = [own_inputs(whole, share, text_length=text, num_references=3) for share in shares_of(bundle, SHAPE, 3)]
    encoded = ("prompt_pooled", "prompt_text", "reference_0", "reference_1", "reference_2")
    assert [[name for name in encoded if name in one] for one in divided] == [
        ["prompt_pooled", "prompt_text"],
        ["reference_0", "reference_2"],
        ["reference_1"],
    ]


@pytest.mark.parametrize("size", [2, 3])
def test_a_workspace_holds_what_it_is_given_and_some_whole(bundle: Bundle, size: int):
    whole, specs = numbered(bundle, SHAPE), request_tensors(bundle, SHAPE)
    assert workspace_tensors(bundle, SHAPE) == specs, "a request that is not shared"
    for share in shares_of(bundle, SHAPE, size):
        held = workspace_tensors(bundle, replace(SHAPE, share=share))
        text = bundle.manifest.model.dims.text_length
        for name, array in own_inputs(whole, share, text_length=text, num_references=3).items():
            assert held[name] == replace(specs[name], shape=array.shape), name
        assert {name: held[other] for name, other in WHOLE.items()} == {name: specs[name] for name in WHOLE}
        assert held[WHOLE_LATENTS] == specs["latents_even"]
        assert held.keys() == specs.keys() | set(WHOLE.values()) | {WHOLE_LATENTS}


def test_without_a_mask_or_references_there_is_none_of_theirs(bundle: Bundle):
    shape = replace(SHAPE, masked=False, references=())
    (share, _) = shares_of(bundle, shape, 2)
    held = workspace_tensors(bundle, replace(shape, share=share))
    assert WHOLE["clean"] not in held
    assert held["reference_tokens"].shape[1] == held[WHOLE["reference_tokens"]].shape[1] == 0


def test_a_tables_rows_are_those_of_the_tokens():
    """Text, target and references, each divided: where no rank's part is the beginning of the whole."""
    table = np.arange(5 + 4 + 3, dtype=np.float32)[:, None]
    shares = divide(5, 4, 3, 2)
    rows = [
        own_inputs({"cos": table}, Share(rank=rank, shares=shares), text_length=5, num_references=1)["cos"][:, 0]
        for rank in (0, 1)
    ]
    assert [one.tolist() for one in rows] == [[0, 1, 2, 5, 6, 9], [3, 4, 7, 8, 10, 11]]


def test_ranks_encode_and_decode_by_turns():
    assert [reference_rank(one, 2) for one in range(3)] == [1, 1, 1]
    assert [reference_rank(one, 4) for one in range(5)] == [1, 2, 3, 1, 2]
    assert [picture_rank(one, 3) for one in range(4)] == [0, 1, 2, 0]
    names = ("latents_odd", "pictures", "prompt_text", "reference_0", "reference_1", "image_1")
    assert given_by(0, names, 2, 2, 3) == ("latents_odd", "pictures", "prompt_text")
    assert given_by(1, names, 2, 2, 3) == ("latents_odd", "pictures", "reference_0")
    assert given_by(2, names, 2, 2, 3) == ("latents_odd", "reference_1", "image_1")
    assert given_by(1, names, 1, 0, 2) == ("latents_odd",)


def test_stages_take_as_long_as_on_the_rank_that_took_longest():
    assert slowest([(1.0, 4.0), (2.0, 5.0)]) == (2.0, 5.0)
    assert slowest([(6.0, 0.0, 3.0), (0.0, 5.0, 3.0)]) == (6.0, 0.0, 3.0), "they encode at the same time"
    assert slowest([(), ()]) == ()
