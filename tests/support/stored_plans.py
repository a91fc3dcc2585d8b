"""Plans put into a store as a build puts them there."""

from __future__ import annotations

from pathlib import Path

from kontext_trt.engine.plans.leftovers import PLAN
from kontext_trt.engine.plans.manifest import PlanManifest
from kontext_trt.engine.plans.store import PlanStore


def put_plan(store: PlanStore, data: bytes, manifest: PlanManifest) -> Path:
    """The place of a plan with these bytes, which the store has signed."""
    store.folder.mkdir(parents=True, exist_ok=True)
    with store.opened(manifest.ingredients.component, create=True) as folder:
        name = f".{manifest.key}.put"
        with folder.new_folder(name) as built:
            (built.path / PLAN).write_bytes(data)
            path = store.add(built, manifest)
        folder.remove_folder(name)
    return path
