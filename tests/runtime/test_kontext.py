"""The session: what it gives back, batches, caches, cancelling, refusals."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from relisted import relist

from kontext_trt import (
    BundleError,
    ExecutorError,
    Fit,
    ImageError,
    Kontext,
    KontextError,
    Request,
    RequestError,
    Sampling,
)
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def test_output_has_the_references_trained_size(kontext: Kontext, picture):
    result = kontext.edit(picture(640, 512), "make it blue", steps=1, seed=0)
    assert result.size == result.image.size == (144, 112)
    assert result.reference is not None
    assert result.reference.describe() == "640x512 -> 144x112 (resize), stretched by 3 %"


def test_named_size_is_kept_exactly(kontext: Kontext, picture):
    assert kontext.edit(picture(64, 64), "x", steps=1, seed=0, size=(48, 80)).image.size == (48, 80)
    assert kontext.generate("x", steps=1, seed=0).image.size == (128, 128)


def test_batch_equals_one_by_one(kontext: Kontext, picture):
    image, prompts, seeds = picture(128, 128), ["make it blue", "remove the tree"], [3, 4]
    batch = kontext.edit(image, prompts, steps=3, seed=seeds)
    assert [(output.prompt, output.seed) for output in batch.outputs] == [(p, s) for p in prompts for s in seeds]
    for output in batch.outputs:
        alone = kontext.edit(image, output.prompt, steps=3, seed=output.seed)
        np.testing.assert_allclose(output.latents, alone.outputs[0].latents, atol=2e-5)
        assert np.abs(pixels(output.image) - pixels(alone.image)).max() <= 1


def test_same_seed_same_picture_and_another_seed_another(kontext: Kontext, picture):
    first, again, other = (kontext.edit(picture(96, 192), "x", steps=2, seed=seed).image for seed in (5, 5, 6))
    assert pixels(first).tolist() == pixels(again).tolist()
    assert np.abs(pixels(first) - pixels(other)).max() > 10


def test_drawn_seed_is_reported_and_repeats(kontext: Kontext):
    first = kontext.generate("x", steps=1, size=(32, 32))
    again = kontext.generate("x", steps=1, size=(32, 32), seed=first.seed)
    assert pixels(first.image).tolist() == pixels(again.image).tolist()


def test_caches_spare_the_encoders(bundle: Bundle, picture):
    with Kontext.open(bundle) as kontext:
        first = kontext.edit(picture(128, 128), "make it blue", steps=1, seed=0)
        second = kontext.edit(picture(128, 128), "make it blue", steps=1, seed=0)
        third = kontext.edit(picture(128, 128, seed=1), "make it blue", steps=1, seed=0)
    assert {"text", "encode"} <= first.milliseconds.keys()
    assert not {"text", "encode"} & second.milliseconds.keys()
    assert "encode" in third.milliseconds
    assert "text" not in third.milliseconds
    assert pixels(first.image).tolist() == pixels(second.image).tolist()


def test_stages_and_steps_are_timed(kontext: Kontext):
    result = kontext.generate("x", steps=3, seed=0, size=(32, 32))
    assert len(result.step_milliseconds) == 3
    assert sum(result.step_milliseconds) <= result.milliseconds["denoise"]
    stages = sum(value for name, value in result.milliseconds.items() if name != "total")
    assert 0 < stages <= result.milliseconds["total"]


def test_progress_is_told_after_each_step(kontext: Kontext):
    told: list[tuple[int, int]] = []
    kontext.generate("x", steps=3, seed=0, size=(32, 32), on_step=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, not 0"),
        ({"steps": 20_000_000}, "steps must be a whole number from 1 to 1000, not 20000000"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"seed": -1}, "a seed must be a whole number from 0"),
        ({"seed": 2**64}, "a seed must be a whole number from 0"),
        ({"seed": []}, "a prompt and a seed at least, not 1 and 0"),
        ({"seed": range(10**9)}, "a request makes up to 1000 pictures, not 1,000,000,000; ask for them in several"),
        ({"prompt": ["a"] * 501, "seed": (1, 2)}, "up to 1000 pictures, not 1,002"),
        ({"size": np.array([64, 100])}, "size 64x100 is not possible"),
        ({"size": np.array([64])}, "a size is two whole numbers"),
        ({"size": ()}, "a size is two whole numbers"),
        ({"guidance": float("nan")}, "guidance must be a number from 0 to 1000"),
        ({"guidance": -1}, "guidance must be a number from 0 to 1000"),
        ({"guidance": 1e39}, "guidance must be a number from 0 to 1000"),
        ({"guidance": 10**400}, "guidance must be a number from 0 to 1000"),
        ({"size": (100, 100)}, "size 100x100 is not possible"),
        ({"size": (100_000, 16)}, "size 100000x16 is not possible: sides of up to 8192 px are"),
        ({"prompt": "a\udcff"}, r"a prompt must be text that UTF-8 can hold, not 'a\\udcff'"),
        ({"prompt": ""}, "a prompt must be a text"),
        ({"prompt": []}, "a prompt and a seed at least, not 0 and 1"),
        ({"noise": np.zeros((1, 5, 64), np.float32)}, r"noise must be of shape \(1, 64, 64\), this is \(1, 5, 64\)"),
        ({"noise": np.zeros((1, 64, 3), np.float32)}, r"noise must be of shape \(1, 64, 64\), this is \(1, 64, 3\)"),
        ({"noise": [1]}, "noise must be a NumPy array of float32, not list"),
        ({"noise": np.zeros((1, 64, 64), object)}, "noise must be a NumPy array of float32, not object"),
        ({"seed": 3.0}, "a seed must be a whole number"),
        ({"seed": True}, "a seed must be a whole number"),
        ({"guidance": "a"}, "guidance must be a number from 0 to 1000, not 'a'"),
        ({"size": (1024,)}, r"a size is two whole numbers, \(width, height\), not \(1024,\)"),
        ({"size": (64.0, 64.0)}, "a size is two whole numbers"),
        ({"prompt": 3}, "a prompt must be a text"),
    ],
)
def test_arguments_out_of_range_are_refused(kontext: Kontext, options: dict, message: str):
    with pytest.raises(RequestError, match=message):
        kontext.generate(**{"prompt": "x", "seed": 0, **options})


def test_want_of_memory_is_said_in_words(kontext: Kontext, monkeypatch: pytest.MonkeyPatch):
    def perform(*arguments):
        np.empty(1 << 60, np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(kontext.executor, "perform", perform)
        with pytest.raises(ExecutorError, match="not enough memory for 2 pictures of 64x32 in 3 steps; ask for fewer"):
            kontext.generate("x", steps=3, seed=[1, 2], size=(64, 32))
    assert kontext.generate("x", steps=1, seed=0, size=(32, 32)).size == (32, 32)


def test_unknown_fit_is_refused(kontext: Kontext, picture):
    with pytest.raises(RequestError, match="fit must be one of resize, pad, crop, not 'stretch'"):
        kontext.edit(picture(64, 64), "x", fit="stretch")


def test_unknown_behaviour_when_busy_is_refused_before_anything_is_opened(bundle: Bundle, monkeypatch):
    monkeypatch.setattr("kontext_trt.runtime.kontext.open_executor", None)
    with pytest.raises(RequestError, match="when_busy must be one of wait, refuse, not 'later'"):
        Kontext.open(bundle, when_busy="later")


def test_session_that_cannot_be_made_closes_its_executor(bundle_copy: Path, monkeypatch):
    relist(bundle_copy, "tokenizers/t5.json", b"{}")
    bundle, closed = Bundle.open(bundle_copy), []
    monkeypatch.setattr(OnnxRuntimeCpu, "close", lambda executor: closed.append(executor))
    with pytest.raises(BundleError, match="is not a tokenizer"):
        Kontext.open(bundle)
    assert len(closed) == 1


def test_unusable_picture_is_refused(kontext: Kontext):
    with pytest.raises(ImageError, match="is empty"):
        kontext.edit(b"", "x")


def test_closed_session_refuses(bundle: Bundle):
    kontext = Kontext.open(bundle)
    kontext.close()
    kontext.close()
    with pytest.raises(KontextError, match="is closed"):
        kontext.generate("x")


def test_closed_session_does_not_load(bundle: Bundle):
    kontext = Kontext.open(bundle)
    kontext.close()
    with pytest.raises(KontextError, match="is closed"):
        kontext.load()


def test_numpy_numbers_are_numbers(kontext: Kontext):
    one = kontext.generate("x", steps=np.int64(1), seed=np.int64(3), guidance=np.float32(2.5), size=(32, 32))
    two = kontext.generate("x", steps=1, seed=np.array([3]), size=(np.int32(32), 32))
    assert pixels(one.image).tolist() == pixels(two.image).tolist()


@pytest.mark.parametrize("seed", [np.int64(3), np.arange(2), np.array(3)])
def test_request_of_numpy_numbers_is_written_down(kontext: Kontext, picture, tmp_path: Path, seed):
    options = {"steps": np.int64(1), "guidance": np.float32(2.5), "size": (np.int64(32), np.int32(48))}
    result = kontext.edit(picture(64, 64), "x", seed=seed, **options)
    request = result.request(result.outputs[0])
    assert all(type(value) in (int, float, str) for name, value in request.items() if name != "reference")
    assert all(path.is_file() for path in result.save(tmp_path / "a.png"))


def test_given_noise_is_not_said_to_come_from_a_seed(kontext: Kontext):
    result = kontext.generate("x", steps=1, size=(32, 32), noise=np.ones((1, 4, 64), np.float32))
    assert result.seed is None
    assert result.request(result.outputs[0])["seed"] is None


def test_in_parts_or_in_one_piece_is_the_same(kontext: Kontext, picture):
    def latents(**watch):
        result = kontext.edit(picture(96, 192), "x", steps=3, seed=1, **watch)
        assert len(result.step_milliseconds) == 3
        return result.outputs[0].latents.tolist()

    whole = latents()
    assert latents(on_step=lambda done, of: None) == latents(cancel=threading.Event()) == whole
    assert latents(debug_nan=True) == whole


def test_failure_names_component_and_shapes(bundle: Bundle):
    executor = OnnxRuntimeCpu(bundle)
    with pytest.raises(ExecutorError, match=r"t5: input_ids must be \['b', 512\], this is \[1, 5\]"):
        executor.run("t5", {"input_ids": np.zeros((1, 5), np.int32)})
    with pytest.raises(ExecutorError, match=r"t5 failed in ONNX Runtime for input_ids \[1, 512\]: .*indices"):
        executor.run("t5", {"input_ids": np.full((1, 512), 1 << 30, np.int32)})


def test_edit_and_generate_are_requests_that_are_run(kontext: Kontext, picture):
    sampling = Sampling(steps=2, seed=3, size=(48, 32), guidance=3.5)
    named = {"steps": 2, "seed": 3, "size": (48, 32), "guidance": 3.5}
    reference, told = picture(100, 80), []
    edited = kontext.run(
        Request(prompt="x", image=reference, sampling=sampling, fit=Fit.PAD), on_step=lambda *step: told.append(step)
    )
    assert told == [(1, 2), (2, 2)]
    again = kontext.edit(reference, "x", fit="pad", debug_nan=True, **named)
    assert np.array_equal(edited.image, again.image)
    assert edited.request(edited.outputs[0]) == again.request(again.outputs[0])
    generated = kontext.run(Request(prompt="x", sampling=sampling))
    assert np.array_equal(generated.image, kontext.generate("x", **named).image)
    assert generated.reference is None


def test_keywords_that_nobody_knows_are_refused(kontext: Kontext):
    with pytest.raises(TypeError, match="unexpected keyword argument 'stepz'"):
        kontext.generate("x", stepz=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ImageError, match="an edit needs a picture, not None; `generate` makes one"):
        kontext.edit(None, "x")  # pyright: ignore[reportArgumentType]


def test_a_forked_process_is_told_to_open_its_own(kontext: Kontext):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = ""
        try:
            kontext.close()  # does nothing: it is the parent's
            kontext.generate("x", steps=1, seed=0, size=(32, 32))
        except KontextError as error:
            said = str(error)
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    assert f"was opened by process {os.getpid()}, and its libraries do not survive a fork" in said
    assert f"in process {pid} itself" in said
    assert kontext.generate("x", steps=1, seed=0, size=(32, 32)).size == (32, 32)
