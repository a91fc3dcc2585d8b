"""What is seen before a request waits: combinations that are not possible, each with its field."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from served import error_of, served

from kontext_trt import Bundle, Kontext, Solver
from kontext_trt.serving.bodies import Body
from kontext_trt.serving.options import Keeping, Limits, ServingOptions
from kontext_trt.serving.orders import Asked, check_usable, read_order
from kontext_trt.serving.refusals import Refusal
from kontext_trt.serving.service import Service


def read(kontext: Kontext, *, edit: bool = False, limits: Limits | None = None, **fields: Any) -> Asked:
    service = Service.of(kontext, ServingOptions(limits=limits or Limits()))
    return asyncio.run(read_order(service, Body(fields={"prompt": "x", **fields}), edit=edit))


def test_what_nobody_says_is_the_usual(kontext: Kontext):
    asked = read(kontext)
    assert (asked.file_format, asked.quality, asked.stream, asked.previews) == ("png", 100, False, 0)
    ((seed,),) = asked.batches
    assert 0 <= seed < 2**32
    assert asked.order.sampling.steps is None


def test_seeds_go_on_from_the_first_and_wrap(kontext: Kontext):
    asked = read(kontext, n=5, seed=2**64 - 2, limits=Limits(batch=2))
    assert asked.batches == ((2**64 - 2, 2**64 - 1), (0, 1), (2,))


@pytest.mark.parametrize(
    ("edit", "fields", "words", "param"),
    [
        (True, {"session": "new"}, "a new session begins with a picture", "image"),
        (True, {"session": "none"}, "there is no such session", "session"),
        (True, {"session": "new", "turn": 1}, "turn names a result of a session; give its session", "turn"),
        (True, {}, "an edit needs a picture", "image"),
        (False, {"session": "new"}, "a generation has no picture", "session"),
        (False, {"num_inference_steps": 101}, "up to 100 steps are taken here, not 101", "num_inference_steps"),
        (False, {"solver": "heun"}, "solver must be one of euler, ab2, not 'heun'", "solver"),
        (False, {"sigmas": "1;2"}, "sigmas are numbers with commas between, such as 1,0.9,0.6, not '1;2'", "sigmas"),
        (False, {"sigmas": [1, 2]}, "sigmas must be above 0, up to 1, not 2.0", "sigmas"),
        (False, {"sigmas": [0.5]}, "begins below 1 is about a picture that is edited", "sigmas"),
        (False, {"sigmas": [1 - 0.001 * step for step in range(101)]}, "up to 100 steps are taken here", "sigmas"),
        (False, {"step_mask": "0,1"}, "the first step of step_mask must be 1", "step_mask"),
        (False, {"step_mask": [1, 2]}, "a list with 1 of each whole step and 0 of each cached, not", "step_mask"),
        (False, {"step_mask": [1, 0]}, "without the feature step_cache; export it again", "step_mask"),
        (False, {"sigmas": [1], "num_inference_steps": 2}, "1 sigmas make 1 steps, not 2", "num_inference_steps"),
        (False, {"size": "4096x4096"}, "up to 4,194,304 pixels are made here, not 4096x4096", "size"),
        (False, {"stream": True, "response_format": "url"}, "events hold pictures, not addresses", "response_format"),
        (False, {"partial_images": 1}, "partial images come as events", "partial_images"),
        (False, {"output_compression": 3}, "PNG has no quality", "output_compression"),
        (False, {"background": "transparent"}, "pictures have no transparency here", "background"),
        (False, {"lora": "x"}, "this server has no LoRAs; it is started with --lora-folder", "lora"),
        (False, {"model": "x"}, "there is no model 'x'; this server has", "model"),
        (False, {"n": 2, "session": "new"}, "a session's turn makes one picture; leave n out", "n"),
    ],
)
def test_what_is_not_possible_names_its_field(kontext: Kontext, edit: bool, fields: dict, words: str, param: str):
    with pytest.raises(Refusal, match=words) as caught:
        read(kontext, edit=edit, **fields)
    assert caught.value.param == param


def test_a_bundle_of_before_takes_no_mask():
    bundle = SimpleNamespace(manifest=SimpleNamespace(features=()))
    service: Any = SimpleNamespace(runner=SimpleNamespace(bundle=bundle))
    check_usable(service, "x", masked=False)
    with pytest.raises(Refusal, match="this bundle was exported before there were masks; export it again"):
        check_usable(service, "x", masked=True)


def test_solver_and_sigmas_come_as_lists_and_as_text(kontext: Kontext):
    for sigmas in ([1, 0.5], "1,0.5,0"):
        sampling = read(kontext, solver="ab2", sigmas=sigmas).order.sampling
        assert (sampling.solver, sampling.sigmas) == (Solver.AB2, (1.0, 0.5))


def test_a_bundle_of_before_takes_no_second_order(older_bundle: Bundle):
    with Kontext.open(older_bundle) as kontext, pytest.raises(Refusal, match="without the feature velocity") as caught:
        read(kontext, solver="ab2")
    assert caught.value.param == "solver"


def test_a_turn_that_was_let_go_is_told_from_other_mistakes(kontext: Kontext, picture: Callable):
    file = io.BytesIO()
    picture(144, 112).save(file, format="PNG")
    with served(kontext, ServingOptions(keeping=Keeping(session_bytes=1))) as address:

        def ask(**fields: object) -> httpx2.Response:
            files = {"image": file.getvalue()} if fields["session"] == "new" else None
            data = {"prompt": "x", "num_inference_steps": 1, **fields}
            form = {"data": {name: str(value) for name, value in data.items()}, "files": files}
            return httpx2.post(f"{address}/v1/images/edits", timeout=60, **(form if files else {"json": data}))

        name = ask(session="new").json()["session"]
        assert ask(session=name).json()["turn"] == 2
        for turn in (1, 9):
            gone = ask(session=name, turn=turn)
            error = error_of(gone)
            assert (gone.status_code, error["code"], error["param"]) == (404, "turn_not_found", "turn")
            assert f"there is no turn {turn} in this session, or it was let go" in error["message"]
            assert "Kept are 0, the picture, and 2" in error["message"]
        assert ask(session=name, turn=0).json()["turn"] == 3
