"""What is under way is told from the start of a request: what is loaded, encoded, denoised and decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kontext_trt import Bundle, Kontext, OnnxRuntimeOptions
from kontext_trt.runtime.device.residency import Residency
from kontext_trt.runtime.flow.phases import WORDS
from kontext_trt.runtime.flow.stages import Condition, Decode, EncodeReference, EncodeText, Step


class Told:
    """Keeps what is told, and checks that no task has more done than there is."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, float]] = []
        self.done: list[float] = []

    def start(self, task: str, total: float) -> None:
        self.tasks.append((task, total))
        self.done.append(0)

    def advance(self, amount: float) -> None:
        self.done[-1] += amount
        assert self.done[-1] <= self.tasks[-1][1]

    def take(self) -> list[str]:
        """The tasks since the last call, all of them done."""
        assert self.done == [total for _, total in self.tasks]
        names = [task.partition(",")[0] for task, _ in self.tasks]
        self.tasks, self.done = [], []
        return names


@pytest.fixture
def opened(bundle_path: Path) -> Any:
    with Kontext.open(bundle_path, executor=OnnxRuntimeOptions()) as kontext:
        yield kontext


def test_every_stage_has_a_word() -> None:
    assert set(WORDS) == {one.name for one in (EncodeText, EncodeReference, Condition, Step, Decode)}


def test_a_first_request_loads_as_it_goes(opened: Kontext, picture: Any, bundle: Bundle) -> None:
    told = Told()
    opened.edit(picture(64, 48), "make it blue", steps=3, seed=0, progress=told)
    sizes = {task.split()[1].rstrip(","): total for task, total in told.tasks if task.startswith("loading")}
    assert sizes == {name: bundle.graph(name).weight_bytes for name in sizes}
    assert ("denoising", 3) in told.tasks
    assert told.take() == [
        "loading clip", "loading t5", "encoding text", "loading vae_encoder", "encoding pictures",
        "loading conditioner", "conditioning", "loading denoiser", "denoising", "loading vae_decoder", "decoding",
    ]  # fmt: skip
    opened.edit(picture(64, 48), ["make it blue", "add a tree"], steps=1, seed=0, progress=told)
    assert told.take() == ["encoding text", "conditioning", "denoising", "decoding"], "what is there is not told"


def test_it_changes_no_picture(opened: Kontext, picture: Any) -> None:
    told, steps = Told(), []
    asked = {"steps": 2, "seed": 0, "strength": 0.5}
    one = opened.edit(picture(64, 48), "x", **asked)  # pyright: ignore[reportArgumentType]
    opened.forget()
    two = opened.edit(
        picture(64, 48),
        "x",
        progress=told,
        on_step=lambda *done: steps.append(done),
        debug_nan=True,
        **asked,  # pyright: ignore[reportArgumentType]
    )
    assert one.image.tobytes() == two.image.tobytes()
    assert steps == [(1, 1)]
    assert "denoising" in told.take()


def test_loading_is_told_once(opened: Kontext) -> None:
    told = Told()
    opened.load(told)
    assert told.take() == [f"loading {name}" for name in opened.bundle.components]
    opened.load(told)
    opened.generate("x", steps=1, size=(32, 32), progress=told)
    assert told.take() == ["encoding text", "conditioning", "denoising", "decoding"]


def test_over_a_gpu_graphs_and_networks_that_move_give_the_same(simulate: Any) -> None:
    whole = simulate().latents(steps=3)
    for residencies in (None, {"t5": Residency.TURN, "denoiser": Residency.TURN}):
        told, simulation = Told(), simulate(residencies=residencies)
        assert simulation.latents(steps=3, progress=told) == whole
        assert told.take()[-1] == "decoding"
        for _ in range(2):  # recorded, then replayed
            assert simulation.latents(steps=3, progress=told) == whole
            assert told.take() == ["conditioning", "denoising", "decoding"]
