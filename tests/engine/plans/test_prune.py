"""What is removed, and what stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from kontext_trt.engine.builder.build import Built
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.plans.machine import Machine
from kontext_trt.engine.plans.prune import prune_store
from kontext_trt.engine.plans.store import LOCKS, PlanStore


@pytest.fixture
def built(put_clip_plan: Callable[..., Built]) -> Built:
    return put_clip_plan()


@pytest.fixture
def store(built: Built, wide_bundle: Bundle) -> PlanStore:
    return PlanStore.of(wide_bundle.path)


def _pruned(store: PlanStore, bundle: Bundle, **how: bool) -> list[str]:
    return [removal.reason for removal in prune_store(store, bundle, **how)]


def test_a_sound_plan_stays_unless_all_are_asked_for(store: PlanStore, wide_bundle: Bundle, built: Built) -> None:
    assert _pruned(store, wide_bundle) == []
    locks = store.folder / LOCKS
    shutil.rmtree(locks)
    assert _pruned(store, wide_bundle, everything=True, dry_run=True) == ["asked for"]
    assert built.path.is_file()
    assert not locks.exists(), "a dry run writes nothing"
    assert _pruned(store, wide_bundle, everything=True) == ["asked for"]
    assert not built.path.exists()


def test_one_in_use_stays(store: PlanStore, wide_bundle: Bundle, built: Built, ada_machine: Machine) -> None:
    with store.open("clip", built.manifest.key, ada_machine):
        (removal,) = prune_store(store, wide_bundle, everything=True)
        assert removal.in_use
        (removal,) = prune_store(store, wide_bundle, everything=True, dry_run=True)
        assert removal.in_use
    assert built.path.is_file()


def test_a_plan_without_a_manifest_goes(store: PlanStore, wide_bundle: Bundle, built: Built) -> None:
    built.path.with_suffix(".json").unlink()
    (reason,) = _pruned(store, wide_bundle)
    assert "its build was not finished" in reason
    assert not built.path.exists()


@pytest.mark.parametrize("what", ["graph", "weights"])
def test_a_plan_of_what_the_bundle_no_longer_has_goes(store: PlanStore, wide_bundle: Bundle, what: str) -> None:
    manifest = wide_bundle.manifest
    if what == "graph":
        changed = replace(manifest, files=tuple(replace(record, sha256="0" * 64) for record in manifest.files))
    else:
        weights = tuple(replace(record, sample_sha256="0" * 64) for record in manifest.weights)
        changed = replace(manifest, weights=weights)
    now = Bundle(path=wide_bundle.path, manifest=changed)
    assert _pruned(store, now) == [f"the bundle has {'another graph' if what == 'graph' else 'other weights'} now"]


def test_what_a_killed_build_left_goes_unless_it_is_under_way(
    store: PlanStore, wide_bundle: Bundle, built: Built
) -> None:
    key = built.manifest.key
    left = built.path.parent / f".{key}.abc"
    left.mkdir()
    (left / "plan").write_bytes(bytes(100))
    with store.lock(key):
        (removal,) = prune_store(store, wide_bundle)
        assert (removal.in_use, removal.reason) == (True, "it is being built")
        assert left.is_dir()
    (removal,) = prune_store(store, wide_bundle)
    assert (removal.in_use, removal.size_bytes, removal.reason) == (False, 100, "its build was ended")
    assert not left.exists()
    assert built.path.is_file()


def test_a_plan_that_is_being_built_stays(store: PlanStore, wide_bundle: Bundle, built: Built) -> None:
    """A builder has put its plan in place and not yet its manifest: to others it looks unfinished."""
    built.path.with_suffix(".json").unlink()
    with store.lock(built.manifest.key):
        (removal,) = prune_store(store, wide_bundle)
    assert removal.in_use
    assert built.path.is_file()
