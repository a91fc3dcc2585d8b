"""What each rank runs of a stage, and what ranks exchange before steps and after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from thread_ranks import ThreadGroup, as_ranks

from kontext_trt import Bundle
from kontext_trt.runtime.executors.host_workspace import HostWorkspace
from kontext_trt.runtime.flow.shared_stages import SharedStage
from kontext_trt.runtime.flow.shared_tensors import WHOLE_LATENTS, own_inputs, workspace_tensors
from kontext_trt.runtime.flow.shares import Share, divide
from kontext_trt.runtime.flow.stages import Condition, Decode, EncodeReference, EncodeText, Stage, Step, request_stages
from kontext_trt.runtime.flow.tensors import RequestShape, empty, latents_before, request_tensors
from kontext_trt.runtime.flow.workspace import Array

SHAPE = RequestShape(num_prompts=2, num_seeds=2, grid=(3, 5), references=((3, 5), (2, 2)), num_steps=1, masked=True)


class Components:
    """Computes what tells where it came from, and notes what ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, component: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.ran.append(component)
        match component:
            case "clip":
                outputs["pooled"][...] = inputs["input_ids"].sum()
            case "t5":
                outputs["text"][...] = np.arange(outputs["text"].size).reshape(outputs["text"].shape)
                outputs["text"][...] += inputs["input_ids"].sum()
            case "vae_encoder":
                outputs["reference"][...] = np.arange(outputs["reference"].size).reshape(outputs["reference"].shape)
                outputs["reference"][...] += inputs["image"].sum()
            case "conditioner":
                outputs["modulation"][...] = inputs["pooled"].sum()
                outputs["text_tokens"][...] = inputs["text"][..., :1] + inputs["pooled"][:, None, :1]
                outputs["reference_tokens"][...] = inputs["reference"][..., :1]
            case "denoiser":
                outputs["next_latents"][...] = inputs["latents"] + inputs["clean"] + inputs["cos"][0, 0] * 0
                outputs["velocity"][...] = inputs["latents"]
            case "vae_decoder":
                latents = inputs["latents"]
                outputs["image"][...] = latents.reshape(-1)[:1].astype(np.int64) % 256
                outputs["mean"][...] = latents.mean()
            case _:
                raise AssertionError(component)


@pytest.fixture
def whole(bundle: Bundle) -> dict[str, Array]:
    rng, made = np.random.default_rng(0), {}
    for name, spec in request_tensors(bundle, SHAPE).items():
        made[name] = empty(spec)
        made[name][...] = rng.integers(0, 100, spec.shape)
    return made


def inputs_of(whole: Mapping[str, Array]) -> dict[str, Array]:
    names = ("clip_ids", "t5_ids", "image_0", "image_1", "latents_even", "cos", "sin", "keep", "noise", "zeros")
    return {name: whole[name] for name in names}


def run_alone(bundle: Bundle, inputs: Mapping[str, Array], stages: Sequence[Stage]) -> HostWorkspace:
    workspace = HostWorkspace(SHAPE, workspace_tensors(bundle, SHAPE), Components())
    for name, array in inputs.items():
        workspace[name][...] = array
    for stage in stages:
        stage.run(workspace)
    return workspace


class Ran:
    def __init__(self, share: Share, workspace: HostWorkspace, components: list[str]) -> None:
        self.share, self.workspace, self.components = share, workspace, components


def run_shared(bundle: Bundle, inputs: Mapping[str, Array], stages: Sequence[Stage], size: int) -> list[Ran]:
    text, (rows, columns) = bundle.manifest.model.dims.text_length, SHAPE.grid
    shares = divide(text, rows * columns, SHAPE.num_reference_tokens, size)

    def run(group: ThreadGroup) -> Ran:
        share, components = Share(rank=group.rank, shares=shares), Components()
        shape = replace(SHAPE, share=share)
        workspace = HostWorkspace(shape, workspace_tensors(bundle, shape), components, group)
        for name, array in own_inputs(inputs, share, text_length=text, num_references=2).items():
            workspace[name][...] = array
        for stage in stages:
            SharedStage(stage, group.rank, size, SHAPE.batch).run(workspace)
        return Ran(share, workspace, components.ran)

    return as_ranks(size, run)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_hold_their_part_of_what_one_has_and_decode_it(bundle: Bundle, whole: dict[str, Array], size: int):
    inputs = inputs_of(whole)
    stages = request_stages(SHAPE, new_prompts=(0, 1), new_references=(0, 1))
    assert [type(stage) for stage in stages] == [
        *(EncodeText, EncodeText, EncodeReference, EncodeReference, Condition, Step, Decode)
    ]
    alone = run_alone(bundle, inputs, stages)
    pictures: dict[int, Array] = {}
    for ran in run_shared(bundle, inputs, stages, size):
        share, workspace = ran.share, ran.workspace
        for name in ("prompt_pooled", "prompt_text", "reference_0", "reference_1", "pooled", "text", "references"):
            assert np.array_equal(workspace[name], alone[name]), name
        assert np.array_equal(workspace["modulation"], alone["modulation"])
        parts = {"text_tokens": share.text, "reference_tokens": share.reference}
        parts |= dict.fromkeys(("clean", "keep", "noise", "first_latents", latents_before(1)), share.target)
        for name, part in parts.items():
            assert np.array_equal(workspace[name], alone[name][:, part]), name
        for picture in range(share.rank, SHAPE.batch, size):
            assert np.array_equal(workspace[WHOLE_LATENTS][picture], alone[latents_before(1)][picture])
            pictures[picture] = workspace["pictures"][picture]
    assert np.array_equal(np.stack([pictures[number] for number in range(SHAPE.batch)]), alone["pictures"])


def test_each_rank_runs_its_own_components(bundle: Bundle, whole: dict[str, Array]):
    stages = request_stages(SHAPE, new_prompts=(0, 1), new_references=(0, 1))
    ran = [one.components for one in run_shared(bundle, inputs_of(whole), stages, 3)]
    assert ran[0] == ["clip", "t5", "clip", "t5", "conditioner", "denoiser", "vae_decoder", "vae_decoder"]
    assert ran[1] == ["vae_encoder", "conditioner", "denoiser", "vae_decoder"]
    assert ran[2] == ["vae_encoder", "conditioner", "denoiser", "vae_decoder"]


def test_what_a_stage_may_run_is_told(bundle: Bundle):
    for stage, ranks in ((EncodeText(0), {0}), (EncodeReference(0), {1}), (EncodeReference(1), {2})):
        shared = [SharedStage(stage, rank, 3, 2) for rank in range(3)]
        assert {one.rank for one in shared if one.components} == ranks
        assert all(one.name == stage.name for one in shared)
        assert all(one.components in ((), stage.components) for one in shared)
    for stage in (Condition(), Step(0), Step(1, cached=True)):
        assert all(SharedStage(stage, rank, 3, 1).components == stage.components for rank in range(3))
    decoding = [SharedStage(Decode(), rank, 3, 2).components for rank in range(3)]
    assert decoding == [("vae_decoder",), ("vae_decoder",), ()], "there are two pictures"
