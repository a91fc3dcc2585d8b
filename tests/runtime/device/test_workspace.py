"""What is recorded in CUDA graphs, which graphs are kept, and what happens where recording fails."""

import logging
import threading

import numpy as np
import pytest

from kontext_trt import ExecutorError
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.runtime.device import graphs
from kontext_trt.runtime.flow.shared_stages import SharedStage
from kontext_trt.runtime.flow.stages import request_stages


def test_a_step_is_a_graph_for_progress_and_cancel(simulate):
    simulation, whole, told = simulate(), simulate().latents(steps=5), []
    for _ in range(3):
        assert simulation.latents(steps=5, on_step=lambda done, of: told.append(done)) == whole
    assert told == [1, 2, 3, 4, 5] * 3
    before = simulation.cuda.calls.copy()
    simulation.latents(steps=5, cancel=threading.Event())
    assert (simulation.cuda.calls - before)["launch"] == 7  # conditions, five steps, decoding
    assert (simulation.cuda.calls - before)["copy"] == 0  # they are in the graphs


def test_a_rank_that_encodes_no_text_launches_its_whole_request_at_once(simulate):
    """ONNX Runtime's CLIP cannot be recorded, which is no matter to ranks that do not run it."""
    simulation = simulate()
    simulation.latents()
    (workspace,) = simulation.executor._workspaces.values()
    simulation.executor._loaded.keep_out_of_graphs(("clip",))
    stages = request_stages(workspace.shape, new_prompts=(0,), new_references=(0,))
    alone = workspace.jobs(stages, (), ())
    ranks = [workspace.jobs([SharedStage(stage, rank, 2, 1) for stage in stages], (), ()) for rank in range(2)]
    assert [len(jobs) for jobs in (alone, *ranks)] == [2, 2, 1]
    assert [stage.name for stage in alone[0].stages] == ["text"]
    assert [stage.name for stage in ranks[0][0].stages] == ["text", "encode"], "others encode it meanwhile, and wait"


def test_graph_used_longest_ago_goes_first(simulate, monkeypatch):
    monkeypatch.setattr(graphs, "STAGES_KEPT", 12)
    simulation = simulate()
    whole = [simulation.latents(), simulation.latents()][1]  # enqueued, then recorded before all others
    simulation.latents(cancel=threading.Event())  # conditions, three steps, decoding: as many stages as the whole
    simulation.latents()
    simulation.latents(prompt="another")  # one stage more, the text
    before = simulation.cuda.calls.copy()
    assert simulation.latents() == whole
    made = simulation.cuda.calls - before
    assert made == {"launch": 1, "synchronize": 1, "use": 1}
    assert simulation.graphs == 3, "two whole ones, and decoding, of the others the last used"


def test_steps_of_a_request_that_has_too_many_are_enqueued(simulate, monkeypatch):
    monkeypatch.setattr(graphs, "STAGES_KEPT", 6)
    monkeypatch.setattr(graphs, "OTHER_STAGES", 2)
    simulation, watched = simulate(), {"steps": 8, "on_step": lambda done, of: None}
    whole = simulation.latents(steps=8)
    for _ in range(2):
        assert simulation.latents(**watched) == whole
    assert simulation.graphs == 2  # conditions, decoding
    before = simulation.cuda.calls.copy()
    assert simulation.latents(**watched) == whole
    assert (simulation.cuda.calls - before)["instantiate"] == 0
    assert simulation.latents(steps=8) == whole
    assert simulation.graphs == 1  # as a whole it is one graph, and kept though it has ten stages


def test_a_graph_is_gone_before_its_buffers(simulate):
    simulation = simulate(workspaces=1)
    simulation.latents()
    simulation.latents()
    (shape,) = simulation.executor._workspaces
    (graph,) = simulation.executor._graphs.of(shape).values()
    simulation.latents(size=(32, 32))  # takes the other's place
    assert simulation.graphs == 0
    launches = simulation.cuda.calls["launch"]
    with pytest.raises(ExecutorError, match="closed with the buffers that it was recorded on"):
        graph.launch(simulation.executor._stream)
    assert simulation.cuda.calls["launch"] == launches


def test_arena_that_grows_takes_the_graphs_of_the_old_one_along(simulate):
    simulation = simulate()
    small = simulation.latents(prompt="x", seed=1)
    assert simulation.latents(prompt="x", seed=1) == small
    assert simulation.graphs == 1
    arena = simulation.executor._arena.size_bytes
    simulation.executor.run("denoiser", _denoiser_inputs(simulation.bundle, batch=4))
    assert simulation.executor._arena.size_bytes > arena
    assert simulation.graphs == 0
    for _ in range(3):
        assert simulation.latents(prompt="x", seed=1) == small
    assert simulation.graphs == 1


def _denoiser_inputs(bundle, batch: int) -> dict[str, np.ndarray]:
    dims, draw = bundle.manifest.model.dims, np.random.default_rng(0)
    sizes = {"b": batch, "n": 16, "m": 16, "s": dims.text_length + 32}
    return {
        port.name: draw.standard_normal(dims.resolve(port.dims, **sizes)).astype(np.float32)
        for port in COMPONENTS["denoiser"].inputs
    }


def test_kernels_that_are_not_finished_are_waited_for(simulate, caplog):
    simulation, unfinished = simulate(), [True]
    simulation.library.faults["unfinished"] = lambda component: unfinished[0] and component == "denoiser"
    whole = simulation.latents()
    assert caplog.messages == [], "nothing is recorded in a first request"
    for _ in range(3):
        assert simulation.latents() == whole
    assert simulation.graphs == 0
    said = [message for message in caplog.messages if "the library lets no CUDA graph record it now" in message]
    assert said == ["denoiser: the library lets no CUDA graph record it now; it is enqueued call by call"]
    unfinished[0] = False
    assert simulation.latents() == whole
    assert simulation.graphs == 1


def test_capture_that_fails_is_said_once_and_done_without(simulate, caplog):
    simulation = simulate()
    simulation.library.faults["capture"] = lambda component: component == "denoiser"
    with caplog.at_level(logging.WARNING):
        whole = simulation.latents()
        for _ in range(3):
            assert simulation.latents() == whole
    assert simulation.graphs == 0
    assert len([record for record in caplog.records if "cannot be recorded" in record.message]) == 1


def test_stage_that_cannot_be_recorded_stays_out_of_graphs(simulate, caplog):
    simulation = simulate()
    (stream,) = simulation.cuda.streams
    simulation.library.faults["enqueue"] = lambda component: component == "clip" and stream.capture is not None
    first = simulation.latents(prompt="x")
    for prompt in "yzx":
        simulation.kontext.forget()
        simulation.latents(prompt=prompt)
    assert simulation.latents(prompt="x") == first
    jobs = [job for shape in simulation.executor._workspaces for job in simulation.executor._graphs.of(shape)]
    assert next([stage.name for stage in job.stages] for job in jobs) == ["condition", *["denoise"] * 3, "decode"]
    assert [record.message.split(" cannot")[0] for record in caplog.records] == ["text"]
