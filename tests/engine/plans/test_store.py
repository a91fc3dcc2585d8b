"""A store opens whole plans of its own that fit the machine, and nothing else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from compiler_fixtures import ADA
from stored_plans import put_plan

from kontext_trt.engine.builder.build import Built
from kontext_trt.engine.errors import BundleError, PlanError, UntrustedPlanError
from kontext_trt.engine.flavour import Flavour
from kontext_trt.engine.plans.machine import Machine, mismatches
from kontext_trt.engine.plans.manifest import PlanManifest
from kontext_trt.engine.plans.options import Compatibility
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.engine.system.gpus import Gpu, find_gpus


@pytest.fixture
def store(clip_plan: Built, tmp_path: Path) -> PlanStore:
    """A store of one's own with two plans of the same bytes, under different keys."""
    store = PlanStore.of(tmp_path / "bundle")
    for batch in (1, 2):
        coverage = replace(clip_plan.manifest.ingredients.coverage, batch=batch)
        ingredients = replace(clip_plan.manifest.ingredients, coverage=coverage)
        manifest = replace(clip_plan.manifest, ingredients=ingredients, key=ingredients.key)
        put_plan(store, clip_plan.path.read_bytes(), manifest)
    return store


def opened(store: PlanStore, key: str, machine: Machine) -> bytes:
    """What would be handed to the library."""
    with store.open("clip", key, machine) as plan:
        return bytes(plan.data)


def keys(store: PlanStore) -> list[str]:
    return [entry.manifest.key for entry in store.entries() if entry.manifest is not None]


def test_a_sound_plan_opens_with_its_own_bytes(store: PlanStore, clip_plan: Built, ada_machine: Machine) -> None:
    for key in keys(store):
        assert opened(store, key, ada_machine) == clip_plan.path.read_bytes()


def truncated(plan: Path, other: Path, dice: random.Random) -> str:
    file = dice.choice([plan, plan.with_suffix(".json")])
    data = file.read_bytes()
    file.write_bytes(data[: dice.randrange(len(data))])
    return "cut short|is empty|damaged|altered"


def extended(plan: Path, other: Path, dice: random.Random) -> str:
    file = dice.choice([plan, plan.with_suffix(".json")])
    file.write_bytes(file.read_bytes() + dice.randbytes(dice.randrange(1, 4096)))
    return "cut short or altered|damaged|altered"


def flipped(plan: Path, other: Path, dice: random.Random) -> str:
    file = dice.choice([plan, plan.with_suffix(".json")])
    data = bytearray(file.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    file.write_bytes(data)
    return "altered|damaged|has schema"


def overwritten(plan: Path, other: Path, dice: random.Random) -> str:
    data = bytearray(plan.read_bytes())
    start = dice.randrange(len(data) - 4096)
    data[start : start + 4096] = dice.randbytes(4096)
    plan.write_bytes(data)
    return "altered: its hash"


def swapped(plan: Path, other: Path, dice: random.Random) -> str:
    shutil.copy(other.with_suffix(".json"), plan.with_suffix(".json"))
    return "files were exchanged"


def removed(plan: Path, other: Path, dice: random.Random) -> str:
    dice.choice([plan, plan.with_suffix(".json")]).unlink()
    return "cannot be read|has no manifest"


def of_another_version(plan: Path, other: Path, dice: random.Random) -> str:
    text = plan.with_suffix(".json").read_text()
    old, new = dice.choice([('"schema": 2', '"schema": 9'), ("1.7.1.116", "1.8.0.1"), ("sm_89", "sm_120")])
    assert old in text
    plan.with_suffix(".json").write_text(text.replace(old, new))
    return "has schema 9|altered: its checksum"


CORRUPTIONS = (truncated, extended, flipped, overwritten, swapped, removed, of_another_version)


def test_corrupted_plans_and_manifests_are_refused_before_the_library(
    store: PlanStore, ada_machine: Machine, tmp_path: Path
) -> None:
    dice, first = random.Random(3), keys(store)
    sound = {path: path.read_bytes() for key in first for path in (store.path("clip", key), _beside(store, key))}
    reached: list[bytes] = []
    for number in range(150):
        key, other = dice.sample(first, 2)
        corrupt = CORRUPTIONS[number % len(CORRUPTIONS)]
        reason = corrupt(store.path("clip", key), store.path("clip", other), dice)
        with pytest.raises(PlanError, match=reason):
            reached.append(opened(store, key, ada_machine))
        assert store.find("clip", key) is None, "a corrupted plan must be built again"
        for path, data in sound.items():
            path.write_bytes(data)
    assert reached == []
    assert keys(store) == first


def _beside(store: PlanStore, key: str) -> Path:
    return store.path("clip", key).with_suffix(".json")


def _gpu(**fields: object) -> Gpu:
    return replace(ADA, **fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "1.8.0.1"}, "library version is 1.7.1.116 in the plan and 1.8.0.1 here"),
        ({"flavour": "tensorrt"}, "library is tensorrt_rtx in the plan and tensorrt here"),
        ({"gpu": None}, "GPU is sm_89 in the plan and none here"),
        ({"gpu": _gpu(major=12, minor=0)}, "compute capability is sm_89 in the plan and sm_120 here"),
    ],
)
def test_another_machine_is_told_the_field_both_values_and_the_command(
    store: PlanStore, ada_machine: Machine, change: dict[str, object], words: str
) -> None:
    other = replace(ada_machine, **change)  # pyright: ignore[reportArgumentType]
    with pytest.raises(PlanError) as refusal:
        opened(store, keys(store)[0], other)
    assert words in str(refusal.value)
    assert f"kontext-trt build {store.bundle} --gpu current" in str(refusal.value)


@pytest.mark.parametrize(
    ("target", "compatibility", "gpu", "fits"),
    [
        ({"capability": "portable"}, Compatibility.NONE, _gpu(major=12, minor=0), True),
        ({"capability": "portable"}, Compatibility.NONE, _gpu(major=7, minor=5), False),
        ({"gpu": "NVIDIA L4"}, Compatibility.NONE, ADA, False),
        ({"gpu": ADA.name}, Compatibility.NONE, ADA, True),
        ({"gpu": "NVIDIA L4"}, Compatibility.SAME_CAPABILITY, ADA, True),
        ({"gpu": "NVIDIA L4"}, Compatibility.AMPERE_PLUS, _gpu(major=9, minor=0), True),
    ],
)
def test_who_may_run_a_plan(
    clip_plan: Built,
    ada_machine: Machine,
    target: dict[str, str],
    compatibility: Compatibility,
    gpu: Gpu,
    fits: bool,
) -> None:
    had = clip_plan.manifest.ingredients
    options = replace(had.options, compatibility=compatibility)
    ingredients = replace(had, target=replace(had.target, **target), options=options)
    manifest: PlanManifest = replace(clip_plan.manifest, ingredients=ingredients)
    assert (not list(mismatches(manifest, replace(ada_machine, gpu=gpu)))) is fits


def test_a_store_elsewhere_opens_what_was_signed_here(store: PlanStore, ada_machine: Machine, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(store.folder, tmp_path / "elsewhere"))
    key = keys(store)[0]
    assert opened(PlanStore(bundle=store.bundle, folder=elsewhere), key, ada_machine)
    (elsewhere / "clip" / f"{key}.sig").unlink()
    with pytest.raises(UntrustedPlanError, match=r"is not signed by your key .* executable code.*--trust.*plans trust"):
        opened(PlanStore(bundle=store.bundle, folder=elsewhere), key, ada_machine)
    assert opened(PlanStore(bundle=store.bundle, folder=elsewhere, trust=True), key, ada_machine)


def test_a_link_in_the_store_is_refused_even_with_trust(store: PlanStore, ada_machine: Machine, tmp_path: Path) -> None:
    key = keys(store)[0]
    path = store.path("clip", key)
    path.rename(tmp_path / "elsewhere.plan")
    path.symlink_to(tmp_path / "elsewhere.plan")
    with pytest.raises(BundleError, match="is a symbolic link"):
        opened(replace(store, trust=True), key, ada_machine)
    assert store.remove_unused("clip", key)
    assert (tmp_path / "elsewhere.plan").is_file(), "the link goes, what it points to stays"


def test_a_plan_that_everyone_can_write_needs_trust(store: PlanStore, ada_machine: Machine) -> None:
    key = keys(store)[0]
    store.path("clip", key).chmod(0o666)
    with pytest.raises(PlanError, match="can be written by others than its owner"):
        opened(store, key, ada_machine)


def test_trust_does_not_excuse_damage(store: PlanStore, ada_machine: Machine) -> None:
    key = keys(store)[0]
    store.path("clip", key).write_bytes(b"not a plan")
    with pytest.raises(PlanError, match="cut short or altered"):
        opened(replace(store, trust=True), key, ada_machine)


def test_a_plan_in_use_is_not_removed(store: PlanStore, ada_machine: Machine) -> None:
    key = keys(store)[0]
    path = store.path("clip", key)
    with store.open("clip", key, ada_machine):
        assert not store.remove_unused("clip", key)
        assert path.is_file()
    assert store.remove_unused("clip", key)
    assert not path.exists()
    assert sorted(file.name for file in path.parent.iterdir() if key in file.name) == []


def test_the_library_is_asked_last_and_its_reason_is_told(store: PlanStore, ada_machine: Machine) -> None:
    key, asked = keys(store)[0], list[int]()

    def refusal(plan: memoryview) -> str:
        asked.append(len(plan))
        return "old cuda driver"

    with (
        pytest.raises(PlanError, match=r"tensorrt_rtx will not open .*: old cuda driver\. Build it with"),
        store.open("clip", key, ada_machine, refusal),
    ):
        raise AssertionError("it was opened")
    with (
        pytest.raises(PlanError, match="library version"),
        store.open("clip", key, replace(ada_machine, version="2.0"), refusal),
    ):
        raise AssertionError("it was opened")
    assert len(asked) == 1


@pytest.mark.skipif(bool(find_gpus()[0]), reason="there is a GPU, which may be able to run the plan")
def test_tensorrt_rtx_itself_refuses_plans_where_there_is_no_gpu(
    store: PlanStore, ada_machine: Machine, rtx: Flavour
) -> None:
    with (
        pytest.raises(PlanError, match=r"tensorrt_rtx will not open .* where there is no GPU"),
        store.open("clip", keys(store)[0], ada_machine, rtx.refusal),
    ):
        raise AssertionError("it was opened")


def test_verify_names_each_problem(store: PlanStore, make_worse: Callable[[Path], None]) -> None:
    entries = list(store.entries())
    assert [problem for entry in entries for problem in store.problems(entry)] == []
    make_worse(entries[0].path)
    problems = [problem for entry in entries for problem in store.problems(entry)]
    assert len(problems) == 1
    assert str(entries[0].path) in problems[0]


@pytest.fixture
def make_worse() -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return flip
