"""Peers run beside us: their times, their pictures, and what becomes of those that fail."""

from __future__ import annotations

import contextlib
import types
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from kontext_trt import Kontext
from kontext_trt.benchmarks.bench import peer_compile, peers
from kontext_trt.benchmarks.bench.agreement import agreement
from kontext_trt.benchmarks.bench.peer_process import _Request, stored_bytes, stored_precision
from kontext_trt.benchmarks.bench.peers import PeerName, PeerRequest, measure_peer
from kontext_trt.benchmarks.bench.records import Case, EngineRun, Unmeasured
from kontext_trt.benchmarks.bench.stage_times import StageTimes
from kontext_trt.engine.components import Precision
from kontext_trt.runtime.flow.noise import starting_noise

SIZE = (144, 112)
CASE = Case(size=SIZE, reference=SIZE, steps=3, batch=1, seed=7, guidance=2.5, prompt="make it blue")


@pytest.fixture(scope="module")
def reference(picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "reference.png"
    picture(*SIZE).save(path)
    return path


def check_run(found: EngineRun | Unmeasured, peer: PeerName) -> EngineRun:
    assert isinstance(found, EngineRun), found
    assert (found.engine, found.executor, found.precision) == (peer.value, "torch-cpu", "fp32")
    assert set(found.warm) == {"total", "text", "encode", "step", "denoise", "decode", "host_gap"}
    assert found.warm["step"].count == 2 * CASE.steps
    parts = sum(found.warm[name].least for name in ("text", "encode", "denoise", "decode"))
    assert 0 < parts <= found.warm["total"].p99
    assert found.memory.host_anonymous > 50e6
    return found


@pytest.fixture(scope="module")
def eager(checkpoint_path: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineRun, Path]:
    """diffusers as it is, and the picture that it made."""
    folder = tmp_path_factory.mktemp("eager")
    found = measure_peer(PeerName.EAGER, checkpoint_path, CASE, reference, repeat=2, folder=folder)
    return check_run(found, PeerName.EAGER), folder / "diffusers.png"


@pytest.mark.check  # so does the benchmark's own test
def test_diffusers_makes_our_picture(eager: tuple[EngineRun, Path], kontext: Kontext, reference: Path, tmp_path: Path):
    run, picture = eager
    assert set(run.cold) == {"import", "open", "load", "first request"}
    assert run.notes == ()
    kontext.edit(reference, CASE.prompt, steps=CASE.steps, guidance=2.5, seed=7).save(tmp_path / "ours.png")
    found = agreement(tmp_path / "ours.png", picture, ("ours", "diffusers"))
    assert found.agree
    assert found.psnr_db > 60


def test_peers_are_given_our_noise():
    """Whatever torch would draw: 2.11 draws another noise than 2.13 in bfloat16."""
    asked: dict[str, torch.Tensor] = {}

    class Pipeline:
        transformer = types.SimpleNamespace(config=types.SimpleNamespace(in_channels=64))
        tokenizer_2 = types.SimpleNamespace(model_max_length=9)

        def __call__(self, **arguments):
            asked.update(arguments)
            return types.SimpleNamespace(images=[])

    case = msgspec.structs.replace(CASE, reference=None, batch=2)
    request = PeerRequest(
        peer=PeerName.EAGER, checkpoint=Path(), case=case, image=None, repeat=1, picture=Path("x.png")
    )
    _Request(request, Pipeline(), torch.device("cpu"), Precision.BF16).call(case)
    noise = [starting_noise(seed, (7, 9), 64, Precision.BF16) for seed in (7, 8)]
    np.testing.assert_array_equal(asked["latents"].numpy(), np.concatenate(noise))
    assert asked["latents"].shape == (2, 63, 64)
    assert "generator" not in asked


@pytest.mark.check
def test_compiled_diffusers_makes_the_same_picture(
    checkpoint_path: Path, reference: Path, eager: tuple[EngineRun, Path], tmp_path: Path
):
    found = measure_peer(PeerName.COMPILED, checkpoint_path, CASE, reference, repeat=2, folder=tmp_path)
    run = check_run(found, PeerName.COMPILED)
    assert {"compile decoder", "compile transformer"} <= set(run.cold)
    assert run.notes[0].startswith("blocks compiled (max-autotune-no-cudagraphs")
    assert agreement(eager[1], tmp_path / "diffusers-compiled.png", ("one", "other")).psnr_db > 60


def test_a_library_that_is_missing_is_named(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None if name == "torchao" else object())
    found = measure_peer(PeerName.FP8, tmp_path, CASE, None, repeat=1, folder=tmp_path)
    assert found == Unmeasured(engine="diffusers-fp8", reason="torchao is not installed")


def test_precision_is_the_checkpoints(checkpoint_path: Path, tmp_path: Path):
    assert stored_precision(checkpoint_path) == "fp32"
    with pytest.raises(ValueError, match="holds nothing; diffusers runs F32, F16, BF16"):
        stored_precision(tmp_path)


def test_a_quantized_tensor_counts_by_its_codes_and_scales():
    class Quantized:
        codes, scale = torch.zeros(8, 16, dtype=torch.float8_e4m3fn), torch.zeros(8, 1)

        def __tensor_flatten__(self):
            return ["codes", "scale"], None

    assert stored_bytes(Quantized()) == 8 * 16 + 4 * 8
    assert stored_bytes(torch.zeros(8, 16, dtype=torch.bfloat16)) == 256


def test_stages_are_timed_between_takes():
    times = StageTimes(torch.device("cpu"))
    assert times.around("double", lambda x: 2 * x)(3) == 6
    times.begin("never ends")
    taken = times.take()
    assert list(taken) == ["double"]
    assert 0 <= taken["double"][0] < 1000
    assert times.take() == {}


def pipeline_of(compiles: dict[str, bool]) -> tuple[types.SimpleNamespace, list[str]]:
    """A pipeline whose blocks compile in some modes, and the modes that were tried."""
    tried: list[str] = []
    transformer = types.SimpleNamespace(compile_repeated_blocks=lambda *, mode, **_: tried.append(mode))
    return types.SimpleNamespace(transformer=transformer, compiles=compiles), tried


@pytest.mark.parametrize("default_works", [True, False])
def test_blocks_that_do_not_compile_fall_back_with_a_note(default_works: bool):
    pipeline, tried = pipeline_of({peer_compile.MODE: False, "default": default_works})

    def request() -> None:
        if not pipeline.compiles[tried[-1]]:
            raise RuntimeError("no valid config\nfor this GPU")

    if default_works:
        graphed, notes = peer_compile.compile_transformer(pipeline, request)
        assert graphed is None
        assert notes[0] == f"blocks do not compile with {peer_compile.MODE}: RuntimeError: no valid config"
        assert notes[1].startswith("blocks compiled (default, fullgraph)")
    else:
        with pytest.raises(RuntimeError, match="no valid config"):
            peer_compile.compile_transformer(pipeline, request)
    assert tried == [peer_compile.MODE, "default"]


class FakeGraph:
    """Replays by running again on what was recorded with: what a graph promises, without a GPU."""

    owner: peer_compile.GraphedForward

    def replay(self) -> None:
        self.owner._results[0].copy_(self.owner._forward(**self.owner._inputs, return_dict=False)[0])


def test_a_recorded_forward_reads_new_inputs(monkeypatch):
    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    fakes = {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": contextlib.nullcontext,
        "synchronize": lambda: None,
        "memory_reserved": lambda: 0,
        "CUDAGraph": FakeGraph,
        "graph": lambda graph, **_: contextlib.nullcontext(),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    graphed = peer_compile.GraphedForward(lambda *, x, scale, return_dict: (scale * x,))
    FakeGraph.owner, ones = graphed, torch.ones(2)
    assert graphed(x=ones, scale=torch.tensor(2.0), return_dict=False)[0].tolist() == [2, 2]
    assert graphed(x=3 * ones, scale=torch.tensor(5.0), return_dict=False)[0].tolist() == [15, 15]
    assert graphed(x=torch.ones(3), scale=torch.tensor(4.0), return_dict=False)[0].tolist() == [4, 4, 4]
    assert ones.tolist() == [1, 1]


def written(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def test_agreement_is_of_pictures_not_of_their_mean(tmp_path: Path):
    random = np.random.default_rng(0)
    scene = random.normal(128, 40, (64, 64, 3))
    one = written(tmp_path / "one.png", scene)
    rounded = written(tmp_path / "rounded.png", scene + random.normal(0, 2, scene.shape))
    another = written(tmp_path / "another.png", random.normal(128, 40, scene.shape))
    near = agreement(one, rounded, ("one", "rounded"))
    assert near.agree
    assert near.psnr_db == pytest.approx(42, abs=0.3)  # 20 log10(255 / 2)
    assert not agreement(one, another, ("one", "another")).agree
    assert agreement(one, one, ("one", "one")).psnr_db == 200
    flat, noise = (written(tmp_path / f"{name}.png", random.normal(128, 3, scene.shape)) for name in ("flat", "noise"))
    pale = agreement(flat, noise, ("flat", "noise"))
    assert pale.psnr_db > 30
    assert not pale.agree  # nothing to see in either, and not the same nothing
    small = written(tmp_path / "small.png", scene[:32])
    with pytest.raises(ValueError, match="one made 64x64, small made 64x32"):
        agreement(one, small, ("one", "small"))
