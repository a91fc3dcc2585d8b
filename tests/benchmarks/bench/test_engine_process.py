"""What the benchmark says of a device's memory is what the device says."""

from pathlib import Path

import pytest

from kontext_trt.benchmarks.bench import engine_process
from kontext_trt.benchmarks.bench.engine_process import EngineJob, measure
from kontext_trt.benchmarks.bench.records import Case
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.runtime.executors.options import ExecutorName


def test_memory_by_component_arena_and_buffers(simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    simulation = simulate()
    seen: list[dict[str, int]] = []
    find = engine_process._memory

    def spy(kontext, components, graphs):
        seen.append({"allocated": simulation.cuda.allocated})
        return find(kontext, components, graphs)

    monkeypatch.setattr(engine_process, "_memory", spy)
    monkeypatch.setattr(engine_process.Kontext, "open", lambda *_, **__: simulation.kontext)
    case = Case(size=(48, 80), reference=None, steps=2, batch=1, seed=0, guidance=2.5, prompt="x")
    job = EngineJob(
        bundle=simulation.bundle.path,
        executor=ExecutorName.TENSORRT,
        vram_bytes=None,
        graphs=True,
        case=case,
        image=None,
        repeat=2,
        picture=tmp_path / "a.png",
        result=tmp_path / "a.json",
    )
    memory = measure(job, 0.0).memory
    assert set(memory.components) == set(COMPONENTS)
    assert memory.arena
    assert memory.buffers
    taken = sum(one.weights for one in memory.components.values())
    assert taken + memory.arena + memory.buffers == seen[0]["allocated"]
    for name, one in memory.components.items():
        cost = simulation.residency.costs[name]
        assert one.reckoned == cost.weights + cost.activations
