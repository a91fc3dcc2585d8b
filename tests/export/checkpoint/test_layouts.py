"""Where the parts of a checkpoint lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checking import check
from safetensors.torch import load_file, save_file

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint import open_checkpoint

PREFIXES = {
    "diffusion_models": "model.diffusion_model.",
    "vae": "vae.",
    "clip_l": "text_encoders.clip_l.transformer.",
    "t5xxl": "text_encoders.t5xxl.transformer.",
}
PARTS = ("transformer", "vae", "clip", "t5")


@pytest.fixture
def models(models_path: Path, tmp_path: Path) -> Path:
    """A ComfyUI `models` folder of one's own."""
    return Path(shutil.copytree(models_path, tmp_path / "ComfyUI/models"))


def files_of(path: Path, **options: Path) -> dict[str, str]:
    """The files that the parts of a checkpoint are read from, once it is found to be whole."""
    check(path, **options)
    opened = open_checkpoint(path)
    return {part: Path(opened.weights(part).source).name for part in PARTS}


NAMES = {
    "transformer": "flux1-dev-kontext.safetensors",
    "vae": "ae.safetensors",
    "clip": "clip_l.safetensors",
    "t5": "t5xxl_fp16.safetensors",
}


@pytest.fixture
def flat(models: Path, tmp_path: Path) -> Path:
    """The four files in one folder."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for file in models.rglob("*.safetensors"):
        shutil.copy(file, folder)
    shutil.copytree(models / "tokenizers", folder / "tokenizers")
    shutil.copy(models / "kontext_sizes.json", folder)
    return folder


@pytest.fixture
def all_in_one(models: Path) -> Path:
    """Everything in one file, as ComfyUI's `Save Checkpoint` names it, and nothing beside it."""
    tensors = {}
    for file in models.rglob("*.safetensors"):
        prefix = next(prefix for stem, prefix in PREFIXES.items() if file.stem.startswith(stem) or stem in file.parts)
        tensors |= {prefix + name: tensor for name, tensor in load_file(file).items()}
    for folder in ("diffusion_models", "vae", "text_encoders"):
        shutil.rmtree(models / folder)
    (models / "checkpoints").mkdir()
    save_file(tensors, models / "checkpoints/kontext-all.safetensors")
    return models / "checkpoints/kontext-all.safetensors"


@pytest.mark.parametrize("place", [".", "..", "diffusion_models", "diffusion_models/flux1-dev-kontext.safetensors"])
def test_comfyui_is_found_from_its_root_its_models_a_folder_and_a_file(models: Path, place: str):
    assert files_of(models / place) == NAMES


@pytest.mark.parametrize("place", [".", "..", "diffusion_models/flux1-dev-kontext.safetensors"])
def test_missing_parts_are_listed_with_where_they_usually_come_from(models: Path, place: str):
    (models / "vae/ae.safetensors").unlink()
    (models / "text_encoders/t5xxl_fp16.safetensors").unlink()
    with pytest.raises(CheckpointError) as refusal:
        check(models / place)
    assert str(refusal.value).endswith(
        " has no vae, t5; name what is elsewhere: --vae FILE --t5 FILE. They usually come from the hub, and these "
        "options fetch them: --vae Comfy-Org/Lumina_Image_2.0_Repackaged:split_files/vae/ae.safetensors "
        "--t5 comfyanonymous/flux_text_encoders:t5xxl_fp16.safetensors"
    )


def test_files_may_lie_deeper(models: Path):
    folder = models / "diffusion_models/flux/kontext"
    folder.mkdir(parents=True)
    file = Path(shutil.move(models / "diffusion_models/flux1-dev-kontext.safetensors", folder))
    assert files_of(models) == files_of(file) == NAMES


def test_hidden_files_and_folders_are_not_looked_at(models: Path):
    for file in list(models.rglob("*.safetensors")):
        (file.parent / ".cache").mkdir(exist_ok=True)
        shutil.copy(file, file.parent / ".cache" / f"2-{file.name}")
        (file.parent / f"._{file.name}").write_bytes(b"Mac OS X")
    assert files_of(models) == NAMES


def test_a_text_encoder_of_another_name_is_known_by_its_tensors(models: Path):
    (models / "text_encoders/clip_l.safetensors").rename(models / "text_encoders/ViT-L-14-detail.safetensors")
    assert files_of(models)["clip"] == "ViT-L-14-detail.safetensors"


def test_a_folder_with_all_four_files_may_have_a_name_of_comfyuis(flat: Path):
    assert files_of(flat.rename(flat.with_name("checkpoints"))) == NAMES


@pytest.mark.parametrize("place", [".", "flux1-dev-kontext.safetensors"])
def test_four_files_in_one_folder(flat: Path, place: str):
    assert files_of(flat / place) == NAMES


def test_flat_files_are_known_by_their_tensors(flat: Path):
    for number, name in enumerate(NAMES.values()):
        (flat / name).rename(flat / f"{number}.safetensors")
    assert files_of(flat) == {part: f"{number}.safetensors" for number, part in enumerate(PARTS)}


def test_of_two_flat_files_the_likelier_is_taken_and_else_neither(flat: Path):
    shutil.copy(flat / NAMES["transformer"], flat / "other.safetensors")
    assert files_of(flat) == NAMES
    shutil.copy(flat / NAMES["transformer"], flat / "kontext-too.safetensors")
    with pytest.raises(CheckpointError, match=r"several files for one part: flux1-dev-kontext.*, kontext-too"):
        check(flat)


def test_why_a_flat_file_is_not_read_is_said(flat: Path):
    (flat / "ae.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"has no vae; .*--vae FILE \(1 files were not read: .*Git LFS pointer"):
        check(flat)


@pytest.mark.parametrize("place", [".", "..", "checkpoints/kontext-all.safetensors"])
def test_everything_in_one_file(all_in_one: Path, place: str):
    assert set(files_of(all_in_one.parents[1] / place).values()) == {all_in_one.name}


def test_the_autoencoders_other_prefix(all_in_one: Path):
    tensors = load_file(all_in_one)
    save_file({name.replace("vae.", "first_stage_model."): one for name, one in tensors.items()}, all_in_one)
    assert set(files_of(all_in_one).values()) == {all_in_one.name}


def test_everything_in_one_file_reads_the_same(all_in_one: Path, models_path: Path):
    one, other = open_checkpoint(all_in_one), open_checkpoint(models_path)
    assert one.config == other.config
    for part in PARTS:
        ours, theirs = one.weights(part).views, other.weights(part).views
        assert ours.keys() == theirs.keys()
        assert all(ours[name].read().equal(theirs[name].read()) for name in ours)


def test_a_file_in_a_diffusers_folder_takes_the_rest_from_there(checkpoint_copy: Path, models_path: Path):
    """As BFL's repository has both."""
    file = checkpoint_copy / "flux1-kontext-dev.safetensors"
    shutil.copy(models_path / "diffusion_models/flux1-dev-kontext.safetensors", file)
    folders = {"vae": "vae", "clip": "text_encoder", "t5": "text_encoder_2"}
    assert files_of(file) == {"transformer": file.name, **folders}
    file = checkpoint_copy / "transformer/diffusion_pytorch_model.safetensors"
    assert files_of(file) == {"transformer": file.name, **folders}


def test_a_bundle_is_no_checkpoint(bundle_path: Path):
    with pytest.raises(CheckpointError, match=r"is a bundle, which was exported already; name the checkpoint"):
        open_checkpoint(bundle_path)
