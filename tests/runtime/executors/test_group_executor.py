"""Requests shared by processes on the CPU: what one process makes, of every kind of request, and what goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from few_descriptors import num_descriptors
from lora_pictures import random_pairs, write_lora
from once_per_run import OncePerRun
from PIL import Image
from processes import has_ended, wait_until

from kontext_trt import (
    Bundle,
    BundleError,
    Cancelled,
    ExecutorError,
    Kontext,
    OptionError,
    Previews,
    RequestError,
    Result,
    Session,
)
from kontext_trt.benchmarks.quality.metrics import sqnr_db
from kontext_trt.engine.components import Operators
from kontext_trt.engine.errors import GpuMemoryError
from kontext_trt.runtime.executors import ranks
from kontext_trt.runtime.executors.group_executor import GroupExecutor
from kontext_trt.runtime.executors.options import OnnxRuntimeOptions

ROOT = Path(__file__).parents[3]
MakePicture = Callable[..., Image.Image]
TOLERANCE = 1e-5
"""What sums in another order may differ by, in latents of up to 5: keys come in the order of the ranks."""
TRAINED = 4e-5
"""What they may in a trained model, in three steps; 2e-5 was the most."""


def opened(bundle: Bundle | Path, devices: int = 1, **options) -> Kontext:
    chosen = OnnxRuntimeOptions(device="cpu", threads=1, **options)
    return Kontext.open(bundle, executor=chosen, devices=devices)


def pids_of(kontext: Kontext) -> list[int]:
    return [child.pid for child in kontext.executor._ranks._children]


def is_gone(pid: int) -> bool:
    """Also no zombie."""
    return not Path(f"/proc/{pid}").exists()


class Pair(NamedTuple):
    """One process, and several that share requests."""

    alone: Kontext
    shared: Kontext
    tolerance: float = TOLERANCE

    def same(self, make: Callable[[Kontext], Result]) -> Result:
        """What both make is the same; return what the shared one made."""
        alone, shared = make(self.alone), make(self.shared)
        assert len(alone.outputs) == len(shared.outputs)
        for one, other in zip(alone.outputs, shared.outputs, strict=True):
            np.testing.assert_allclose(other.latents, one.latents, atol=self.tolerance, rtol=0)
            pixels = [np.asarray(output.image).astype(int) for output in (one, other)]
            assert np.abs(pixels[0] - pixels[1]).max() <= 1
        return shared

    def edit(self, *arguments, **keywords) -> Result:
        return self.same(lambda kontext: kontext.edit(*arguments, **{"seed": 1, "steps": 2} | keywords))

    def generate(self, *arguments, **keywords) -> Result:
        return self.same(lambda kontext: kontext.generate(*arguments, **{"seed": 1, "steps": 2} | keywords))


@pytest.fixture(scope="module")
def pair(fused_path: Path) -> Iterator[Pair]:
    with opened(fused_path) as alone, opened(fused_path, 2) as shared:
        assert shared.executor.name == "onnxruntime (cpu, cpu)"
        yield Pair(alone, shared)


def test_an_edit_of_uneven_tokens_is_the_same_and_again(pair: Pair, picture: MakePicture):
    """63 target tokens, 64 of the reference."""
    image = picture(128, 128)
    made = pair.edit(image, "make it blue", size=(144, 112))
    other = pair.edit(image, "make it red", size=(112, 48))
    again = pair.shared.edit(image, "make it blue", size=(144, 112), seed=1, steps=2)
    assert np.array_equal(again.outputs[0].latents, made.outputs[0].latents)
    assert other.outputs[0].image.size == (112, 48)


def test_references_of_other_sizes_and_none_are_the_same(pair: Pair, picture: MakePicture):
    pair.edit([picture(128, 96), picture(80, 112, 1), picture(48, 48, 2)], "both", size=(80, 80))
    pair.generate("a fox", size=(48, 80))
    pair.generate("a fox", size=(16, 32), steps=1)


def test_a_mask_and_a_second_order_are_the_same(pair: Pair, picture: MakePicture):
    image = picture(128, 128)
    pair.edit(image, "x", mask=(32, 32, 96, 64), steps=3, solver="ab2")
    uneven = np.zeros((128, 128), np.uint8)
    uneven[5:61, 70:] = 255
    made = pair.edit(image, "x", mask=uneven, feather=4)
    kept = np.asarray(made.outputs[0].image)[100:, :40]
    assert np.abs(kept.astype(int) - np.asarray(image)[100:, :40]).max() <= 1


def test_prompts_by_seeds_are_the_same(pair: Pair, picture: MakePicture):
    made = pair.edit(picture(64, 64), ["make it blue", "add a tree"], seed=[1, 2], size=(80, 48))
    assert len({output.latents.tobytes() for output in made.outputs}) == 4


def test_a_late_beginning_is_the_same(pair: Pair, picture: MakePicture):
    pair.edit(picture(96, 80), "x", strength=0.5, steps=4)
    noise = np.random.default_rng(3).standard_normal((1, 30, 64)).astype(np.float32)
    pair.edit(picture(96, 80), "x", noise=noise, size=(96, 80), steps=1)


def test_previews_and_steps_are_told_the_same(pair: Pair, picture: MakePicture):
    shown: list[list[np.ndarray]] = []
    told: list[list[tuple[int, int]]] = []

    def make(kontext: Kontext) -> Result:
        shown.append([])
        told.append([])
        previews = Previews(count=2, show=lambda _, pictures: shown[-1].extend(map(np.asarray, pictures)))
        return kontext.edit(
            picture(64, 64),
            "x",
            steps=3,
            seed=[1, 2],
            size=(80, 48),
            previews=previews,
            on_step=lambda done, steps: told[-1].append((done, steps)),
        )

    pair.same(make)
    assert told[0] == told[1] == [(1, 3), (2, 3), (3, 3)]
    assert len(shown[0]) == len(shown[1]) == 4
    for one, other in zip(*shown, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_a_session_is_the_same(pair: Pair, picture: MakePicture):
    turns = []
    for kontext in (pair.alone, pair.shared):
        with kontext.session(picture(96, 80)) as session:
            assert isinstance(session, Session)
            turns.append([session.edit(words, steps=1, seed=0).latents for words in ("make it blue", "add a tree")])
    np.testing.assert_allclose(turns[0], turns[1], atol=TOLERANCE, rtol=0)


def test_every_stage_by_itself_is_the_same(pair: Pair, picture: MakePicture):
    """As a search for NaN runs it, with each stage's time."""
    made = pair.edit(picture(72, 64), "a prompt of its own", debug_nan=True, size=(64, 48))
    assert {"text", "encode", "condition", "denoise", "decode"} <= made.milliseconds.keys()


def test_a_picture_of_fewer_tokens_than_ranks_is_refused_and_they_live_on(pair: Pair):
    words = "16x16 px are too few for 2 devices, of which each computes at least 16x16; ask for a larger picture"
    with pytest.raises(RequestError, match=words):
        pair.shared.generate("x", size=(16, 16), steps=1)
    pair.generate("x", size=(32, 16), steps=1)


def test_a_request_is_cancelled_before_between_steps_and_while_it_waits(pair: Pair, picture: MakePicture):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled, match="after step 0 of 2"):
        pair.shared.generate("x", steps=2, size=(32, 32), cancel=cancel)
    cancel.clear()
    waits: list[BaseException] = []
    other = threading.Event()

    def wait() -> None:
        try:
            pair.shared.generate("y", steps=1, size=(32, 32), cancel=other)
        except Cancelled as error:
            waits.append(error)

    thread = threading.Thread(target=wait)

    def stop(done: int, steps: int) -> None:
        if done == 1:
            thread.start()
            other.set()
            thread.join()
            cancel.set()

    with pytest.raises(Cancelled, match="after step 1 of 3"):
        pair.shared.generate("x", steps=3, size=(32, 32), seed=1, on_step=stop, cancel=cancel)
    assert [str(one) for one in waits] == ["cancelled while another request was running"]
    pair.generate("x", size=(32, 32))


def test_what_a_callback_raises_leaves_them_usable(pair: Pair):
    def interrupt(done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair.shared.generate("x", steps=2, size=(32, 32), on_step=interrupt)
    pair.generate("x", size=(32, 32))


def test_a_denoiser_is_not_run_alone_but_text_is(pair: Pair):
    with pytest.raises(ExecutorError, match="denoiser is shared by 2 devices, and not run alone; open one device"):
        pair.shared.executor.run("denoiser", {})
    ids = np.zeros((1, 77), np.int64)
    alone, shared = (one.executor.run("clip", {"input_ids": ids}) for one in (pair.alone, pair.shared))
    np.testing.assert_array_equal(alone["pooled"], shared["pooled"])
    with pytest.raises(ExecutorError, match="clip: input_ids must be"):
        pair.shared.executor.run("clip", {"input_ids": ids[:, :3]})
    pair.shared.load()
    pair.generate("x", size=(32, 32), steps=1)


def test_loras_are_swapped_and_kept(branched_bundle: Callable[..., Bundle], lora_file: Callable[[int], Path]):
    bundle = branched_bundle(Operators.FUSED)
    with opened(bundle) as alone, opened(bundle, 2) as shared:
        pair = Pair(alone, shared)
        none = pair.generate("x", size=(48, 48))
        for kontext in (alone, shared):
            kontext.set_lora([(lora_file(1), 0.5)])
        first = pair.generate("x", size=(48, 48))
        second = pair.generate("x", size=(48, 48), loras=[lora_file(2)])
        kept = pair.generate("x", size=(48, 48))
    made = [one.outputs[0].latents for one in (none, first, second, kept)]
    assert np.array_equal(made[1], made[3])
    assert all(np.abs(one - made[1]).max() > 1e-2 for one in (made[0], made[2]))


@pytest.mark.check  # the transformer traced for this
def test_cached_steps_are_the_same(caching: Callable[..., Bundle], once_per_run: OncePerRun, picture: MakePicture):
    bundle = caching("fused-branched", operators=Operators.FUSED, lora_rank=4)
    lora = once_per_run.make("caching.safetensors", lambda path: write_lora(path, random_pairs(bundle, 2, 1)))
    with opened(bundle) as alone, opened(bundle, 2) as shared:
        pair = Pair(alone, shared)
        asked = {"steps": 4, "step_mask": (1, 0, 1, 0), "size": (144, 112)}
        cached = pair.edit(picture(128, 128), "x", **asked)
        every = pair.edit(picture(128, 128), "x", **asked | {"step_mask": (1, 1, 1, 1)})
        pair.edit(picture(128, 128), "x", loras=[lora], seed=[1, 2], mask=(32, 32, 96, 64), **asked | {"size": None})
    assert np.abs(cached.outputs[0].latents - every.outputs[0].latents).max() > 1e-3


def test_an_edit_of_the_small_model_is_the_same(small_fused: Path):
    before = Image.open(ROOT / "docs/small-kontext/before.png").convert("RGB")
    with opened(small_fused) as alone, opened(small_fused, 2) as shared:
        Pair(alone, shared).edit(before, "make the circle red", seed=3, steps=4)


@pytest.mark.check
@pytest.mark.parametrize("devices", [2, 3, 6])
def test_the_small_model_is_the_same_in_batches(small_fused: Path, picture: MakePicture, devices: int):
    with opened(small_fused) as alone, opened(small_fused, devices) as shared:
        pair = Pair(alone, shared, TRAINED)
        pair.edit(picture(128, 128), ["turn it black", "a blue ball"], seed=[1, 2], size=(144, 112), steps=3)
        pair.edit([picture(32, 48), picture(16, 16)], "x", mask=(8, 8, 24, 24))
        pair.generate("a red ball", size=(48, 32), seed=[1, 2, 3])
        pair.generate("a red ball", size=(80, 112), solver="ab2", steps=3)


@pytest.mark.parametrize("recipe", ["fp8", pytest.param("fp8-attention", marks=pytest.mark.check)])
def test_fp8_is_as_near_as_its_rounding(
    fused_quantized: Callable[..., Bundle], fused_path: Path, picture: MakePicture, recipe: str
):
    """A value between two may fall the other way, and the keys' mean is of other samples: both are FP8's rounding."""
    bundle = fused_quantized(recipe)

    def latents(kontext: Kontext) -> np.ndarray:
        return kontext.edit(picture(128, 128), "make it blue", steps=2, seed=1, size=(144, 112)).outputs[0].latents

    with opened(bundle) as alone, opened(bundle, 2) as shared, opened(fused_path) as plain:
        one, two, whole = latents(alone), latents(shared), latents(plain)
    rounding = sqnr_db(whole, one)
    assert sqnr_db(one, two) > rounding + 3, "less than FP8 itself is off"
    assert sqnr_db(whole, two) > rounding - 1


def test_a_rank_that_is_killed_within_a_request(fused_path: Path):
    before = num_descriptors()
    kontext = opened(fused_path, 2)
    pids = pids_of(kontext)

    def kill(done: int, steps: int) -> None:
        os.kill(pids[1], signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(ExecutorError, match="the process of cpu:1 was ended by SIGKILL; the other devices were given"):
        kontext.generate("x", steps=3, size=(32, 32), on_step=kill)
    assert time.monotonic() - began < 10
    assert all(map(is_gone, pids))
    assert kontext.lost == "the process of cpu:1 was ended by SIGKILL"
    with pytest.raises(ExecutorError, match=r"given up earlier: the process of cpu:1 .*; open the bundle again"):
        kontext.generate("x", steps=1, size=(32, 32))
    kontext.close()
    kontext.close()
    assert num_descriptors() == before


@pytest.mark.check
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_amid_a_step(fused_path: Path, victim: int):
    with opened(fused_path, 2) as kontext:
        kontext.generate("x", steps=1, size=(32, 32))
        pids = pids_of(kontext)
        timer = threading.Timer(0.5, os.kill, (pids[victim], signal.SIGKILL))
        timer.start()
        with pytest.raises(ExecutorError, match=f"the process of cpu:{victim} was ended by SIGKILL"):
            kontext.generate("x", steps=200, size=(256, 256), seed=1)
        timer.join()
        assert all(map(is_gone, pids))


@pytest.mark.check
def test_a_rank_that_hangs_is_given_up_in_time(fused_path: Path):
    with opened(fused_path, 2, devices_timeout_s=5) as kontext:
        pids = pids_of(kontext)
        began = time.monotonic()
        with pytest.raises(ExecutorError, match=r"cpu:1 did not answer for 5 s|nothing with rank 1 for 5 s"):
            kontext.generate("x", steps=3, size=(32, 32), on_step=lambda *_: os.kill(pids[1], signal.SIGSTOP))
        assert time.monotonic() - began < 30
        assert all(map(is_gone, pids))


def test_one_that_is_forgotten_leaves_no_process(fused_path: Path):
    before = num_descriptors()
    kontext = opened(fused_path, 2)
    kontext.generate("x", steps=1, size=(32, 32))
    pids = pids_of(kontext)
    del kontext
    wait_until(lambda: all(map(has_ended, pids)), "the ranks end", 10)
    assert num_descriptors() == before


def test_what_cannot_be_shared_is_refused_before_processes_start(fused_path: Path, bundle_path: Path):
    with pytest.raises(OptionError, match="2 heads cannot be shared by 3 devices; 2 can, or 1"):
        opened(fused_path, 3)
    with pytest.raises(BundleError, match="its denoiser has no fused operators; export the checkpoint again with"):
        opened(bundle_path, 2)


def test_one_device_that_is_named_is_no_group(fused_path: Path):
    with Kontext.open(fused_path, executor="cpu", devices=[0]) as kontext:
        assert kontext.executor.name == "onnxruntime (cpu)"


@pytest.mark.parametrize(
    ("size", "asked", "times"),
    [((64, 64), {}, 1), ((2048, 2048), {}, 4), ((64, 64), {"seed": [1, 2]}, 2), ((64, 64), {"steps": 150}, 2)],
)
def test_larger_requests_have_more_time(
    fused_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], asked: dict, times: int
):
    """Of 16384 tokens of the picture and those of the text, attention takes longer than of the usual number."""
    given: list[int] = []

    def note(self: GroupExecutor, arguments: object, *, times: int) -> None:
        given.append(times)
        raise ExecutorError("enough")

    monkeypatch.setattr(GroupExecutor, "_perform", note)
    with opened(fused_path, 2) as shared, pytest.raises(ExecutorError, match="enough"):
        shared.generate("x", **{"size": size, "steps": 2, "seed": 1} | asked)
    assert given == [times]


FAILING = """
import os, sys
from pathlib import Path
from kontext_trt.engine.errors import GpuMemoryError
from kontext_trt.runtime.executors import rank, rank_process

class Failing(rank.Rank):
    def perform(self, *given):
        if self._job.rank == 1 and Path(sys.argv[-1]).exists():
            raise type("CudaMemoryError", (GpuMemoryError,), {})("no memory for that")
        return super().perform(*given)

rank.Rank = Failing
rank_process.main()
"""


def test_after_a_request_too_large_for_one_the_next_one_runs(
    fused_path: Path, picture: MakePicture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The others wait for it in an exchange, so all end; a server must not be lost to one request."""
    monkeypatch.setattr(ranks, "GRACE_S", 0.5)
    flag, code = tmp_path / "too-large", f"import sys; sys.path[:] = {sys.path!r}\n{FAILING}"
    command = (sys.executable, "-c", f"import sys; sys.argv.append({str(flag)!r})\n{code}")
    bundle = Bundle.open(fused_path)
    options = OnnxRuntimeOptions(device="cpu", threads=1, devices=(0, 1))
    with opened(fused_path) as alone, Kontext(bundle, GroupExecutor(bundle, options, command=command)) as shared:
        pair = Pair(alone, shared)
        pair.edit(picture(128, 128), "x", steps=2)
        before = pids_of(shared)
        flag.touch()
        with pytest.raises(GpuMemoryError, match=r"cpu:1 failed: no memory for that. The next request loads all netw"):
            shared.edit(picture(128, 128), "y", steps=2)
        assert shared.lost == ""
        assert all(map(is_gone, before))
        flag.unlink()
        pair.edit(picture(128, 128), "y", steps=2)
        assert not set(pids_of(shared)) & set(before)
