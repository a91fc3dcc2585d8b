"""Checkpoints that are named by their place on the hub, which a server on this machine stands for."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, HubRepository
from huggingface_hub import constants
from safetensors.torch import save_file

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint import Checkpoint, CheckpointFiles, fetch, open_checkpoint
from kontext_trt.export.checkpoint.places import USUAL

ROOT = Path(__file__).parents[3]
SMALL = ROOT / "examples/small_kontext/checkpoint"
BFL = "black-forest-labs/FLUX.1-Kontext-dev"
COMFY = "Comfy-Org/flux1-kontext-dev_ComfyUI"
SINGLE = "split_files/diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors"
WEIGHTS = {
    f"{BFL}:{folder}"
    for folder in (
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
    )
}


class Watched:
    """Notes what it is told, as a bar shows it."""

    def __init__(self) -> None:
        self.tasks: dict[str, list[float]] = {}

    def start(self, task: str, total: float) -> None:
        self.tasks[task] = [total, 0]

    def advance(self, amount: float) -> None:
        next(reversed(self.tasks.values()))[1] += amount


@pytest.fixture
def bfl(hub: Hub) -> Hub:
    """BFL's repository: a diffusers folder and single files, behind a licence."""
    card = {"license": "other", "license_name": "flux-1-dev-non-commercial-license", "license_link": "LICENSE.md"}
    files = hub.add(BFL, SMALL, gated=True, **card).files
    files["flux1-kontext-dev.safetensors"] = files["ae.safetensors"] = b"not to be fetched"
    files["transformer/diffusion_pytorch_model.fp16.safetensors"] = files["vae/diffusion_pytorch_model.bin"] = (
        b"nor this"
    )
    return hub


@pytest.fixture
def singles(hub: Hub, models_path: Path) -> Hub:
    """What ComfyUI's users fetch: each part from where it usually is."""
    found = {
        "transformer": next(models_path.glob("diffusion_models/*")),
        "vae": next(models_path.glob("vae/*")),
        "clip": next(models_path.glob("text_encoders/clip_l*")),
        "t5": next(models_path.glob("text_encoders/t5*")),
    }
    for part, file in found.items():
        repo, _, name = USUAL[part].partition(":")
        hub.repositories.setdefault(repo, HubRepository(files={})).files[name] = file.read_bytes()
    hub.repositories[COMFY].files["kontext_sizes.json"] = (models_path / "kontext_sizes.json").read_bytes()
    return hub


@pytest.fixture
def known(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that has accepted the licence."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def usual(*parts: str) -> CheckpointFiles:
    return CheckpointFiles(**{part: USUAL[part] for part in parts})


def same(one: Checkpoint, path: Path) -> bool:
    """Whether all tensors are those of a checkpoint here."""
    other = open_checkpoint(path)
    views = ((one.weights(part).views, other.weights(part).views) for part in ("transformer", "vae", "clip", "t5"))
    return one.config == other.config and all(
        mine.keys() == its.keys() and all(mine[name].read().equal(its[name].read()) for name in list(its)[:3])
        for mine, its in views
    )


@pytest.mark.usefixtures("known")
def test_of_a_diffusers_repository_what_is_needed_is_fetched_once(bfl: Hub, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    with caplog.at_level(logging.INFO, "kontext_trt.export.checkpoint"):
        opened = open_checkpoint(BFL, progress=watched)
    assert same(opened, SMALL)
    fetched = bfl.fetched()
    assert {file for file in fetched if file.endswith(("safetensors", "bin"))} == WEIGHTS
    assert len(fetched) == len(set(fetched)), "each once"
    assert opened.named == f"{BFL}@{bfl.repositories[BFL].commit[:12]}"
    (told,) = caplog.messages
    assert told == f"{BFL}: licence flux-1-dev-non-commercial-license, {bfl.endpoint}/{BFL}/blob/main/LICENSE.md"
    large = bfl.repositories[BFL].files["transformer/diffusion_pytorch_model.safetensors"]
    (bar,) = watched.tasks.items()
    assert bar == ("fetching transformer/diffusion_pytorch_model.safetensors, 14.3 MiB", [len(large), len(large)])
    bfl.asked.clear()
    assert open_checkpoint(BFL).path == opened.path
    assert bfl.fetched() == [], "from the cache"


@pytest.mark.usefixtures("known")
def test_a_variant_and_shards(bfl: Hub, caplog: pytest.LogCaptureFixture) -> None:
    files = bfl.repositories[BFL].files
    stem = "transformer/diffusion_pytorch_model"
    whole = files[f"{stem}.safetensors"]
    del files[f"{stem}.fp16.safetensors"]
    files[f"{stem}.fp16-00001-of-00002.safetensors"] = whole
    names = list(open_checkpoint(SMALL).transformer.weights.views)
    index = {"weight_map": dict.fromkeys(names, Path(f"{stem}.fp16-00001-of-00002.safetensors").name)}
    files[f"{stem}.safetensors.index.fp16.json"] = json.dumps(index).encode()
    opened = open_checkpoint(BFL, CheckpointFiles(variant="fp16"))
    fetched = [name for name in bfl.fetched() if stem in name]
    assert fetched == [f"{BFL}:{stem}.safetensors.index.fp16.json", f"{BFL}:{stem}.fp16-00001-of-00002.safetensors"]
    assert opened.transformer.weights.views.keys() == set(names)


def test_a_gated_repository_says_what_to_do(bfl: Hub) -> None:
    with pytest.raises(CheckpointError) as refusal:
        open_checkpoint(BFL)
    assert str(refusal.value) == (
        f"{BFL} is gated: accept its licence at {bfl.endpoint}/{BFL} with your account, and be known here by it: hf "
        "auth login, or a token in HF_TOKEN (a fine-grained one needs read access to public gated repositories)"
    )


@pytest.mark.usefixtures("known")
def test_offline_it_is_the_caches(bfl: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    online = open_checkpoint(BFL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    bfl.asked.clear()
    offline = open_checkpoint(BFL)
    assert (offline.path, offline.named) == (online.path, online.named)
    assert bfl.asked == []
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned == [f"{BFL} is taken from the hub's cache: HF_HUB_OFFLINE is set, so the hub is not asked"]
    with pytest.raises(CheckpointError, match=r"FLUX.1-dev is no file or folder here, and the .* is not in"):
        open_checkpoint("black-forest-labs/FLUX.1-dev")
    with pytest.raises(CheckpointError, match=r"has the variant fp16; there are: none"):
        open_checkpoint(BFL, CheckpointFiles(variant="fp16"))
    (offline.path / "vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"should hold one .safetensors file, or shards with an index; it holds none"
    ):
        open_checkpoint(BFL)


@pytest.mark.usefixtures("known")
def test_a_hub_that_cannot_be_reached(bfl: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = open_checkpoint(BFL)
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    assert open_checkpoint(BFL).path == online.path
    with pytest.raises(
        CheckpointError, match=f"not in the hub's cache .*; the hub \\({nowhere}\\) cannot be reached: "
    ):
        open_checkpoint("a/b")


@pytest.mark.usefixtures("known")
def test_a_connection_that_drops_is_resumed(bfl: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    file = "transformer/diffusion_pytorch_model.safetensors"
    bfl.broken[file] = 11_000_000
    watched = Watched()
    assert same(open_checkpoint(BFL, progress=watched), SMALL)
    (first, second) = (line for line in bfl.fetched() if file in line)
    assert first == f"{BFL}:{file}"
    assert 0 < int(second.removeprefix(f"{first} bytes=").removesuffix("-")) <= 11_000_000
    ((total, done),) = watched.tasks.values()
    assert total == done


@pytest.mark.usefixtures("known")
def test_after_an_interrupt_the_rest_is_fetched(bfl: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", _stop_at("text_encoder_2"))
        with pytest.raises(KeyboardInterrupt):
            open_checkpoint(BFL)
    bfl.asked.clear()
    assert same(open_checkpoint(BFL), SMALL)
    assert bfl.fetched() == [f"{BFL}:text_encoder_2/model.safetensors"]


def _stop_at(folder: str) -> Callable[..., None]:
    from huggingface_hub import file_download

    get = file_download.http_get

    def stopping(url: str, *arguments: object, **named: object) -> None:
        if f"/{folder}/model" in url:
            raise KeyboardInterrupt
        get(url, *arguments, **named)  # pyright: ignore[reportArgumentType]

    return stopping


def test_single_files_from_where_they_usually_are(singles: Hub, models_path: Path) -> None:
    files = usual("vae", "clip", "t5")
    opened = open_checkpoint(
        f"{COMFY}:{SINGLE}", CheckpointFiles(vae=files.vae, clip=files.clip, t5=files.t5, tokenizers=models_path)
    )
    assert same(opened, models_path)
    assert opened.named == f"{COMFY}@{singles.repositories[COMFY].commit[:12]}:{SINGLE}"
    assert (
        open_checkpoint(
            COMFY, CheckpointFiles(vae=files.vae, clip=files.clip, t5=files.t5, tokenizers=models_path)
        ).path
        == opened.path
    )


def test_missing_parts_are_named_before_the_file_is_fetched(singles: Hub) -> None:
    with pytest.raises(CheckpointError) as refusal:
        open_checkpoint(f"{COMFY}:{SINGLE}", usual("vae"))
    assert str(refusal.value) == (
        f"{COMFY}:{SINGLE} has no clip, t5. They usually come from: --clip comfyanonymous/flux_text_encoders:"
        "clip_l.safetensors --t5 comfyanonymous/flux_text_encoders:t5xxl_fp16.safetensors"
    )
    assert singles.fetched() == [f"{COMFY}:{SINGLE} bytes=0-100000"]


@pytest.mark.usefixtures("known")
def test_a_file_of_a_diffusers_repository_takes_the_rest_from_there(bfl: Hub, tmp_path: Path) -> None:
    file = tmp_path / "flux1-kontext-dev.safetensors"
    shutil.copy(SMALL / "transformer/diffusion_pytorch_model.safetensors", file)
    bfl.repositories[BFL].files[file.name] = file.read_bytes()
    opened = open_checkpoint(f"{BFL}:{file.name}")
    assert Path(opened.transformer.weights.source).name == file.name
    fetched = {name for name in bfl.fetched() if name.endswith("safetensors")}
    assert fetched == {f"{BFL}:{file.name}"} | {name for name in WEIGHTS if ":transformer" not in name}


@pytest.mark.usefixtures("known")
def test_a_part_may_be_a_repositorys_folder_and_tokenizers_a_repositorys(bfl: Hub, models_path: Path) -> None:
    opened = open_checkpoint(SMALL, CheckpointFiles(vae=BFL, tokenizers=BFL))
    assert Path(opened.vae.weights.source).parent.parent.name == "snapshots"
    assert opened.tokenizers[1].parent == Path(opened.vae.weights.source).parent
    assert opened.named == str(SMALL)
    assert {name for name in bfl.fetched() if name.endswith("safetensors")} == {
        f"{BFL}:vae/diffusion_pytorch_model.safetensors"
    }


def test_a_repository_may_be_one_network(hub: Hub) -> None:
    """As fine-tuned transformers are handed on."""
    hub.add("a/finetune", SMALL / "transformer")
    opened = open_checkpoint(SMALL, CheckpointFiles(transformer="a/finetune"))
    assert Path(opened.transformer.weights.source).parent.name == "snapshots"
    assert set(hub.fetched()) == {"a/finetune:config.json", "a/finetune:diffusion_pytorch_model.safetensors"}
    hub.add("a/pipeline", SMALL / "transformer", into="transformer/").files["model_index.json"] = b"{}"
    with pytest.raises(CheckpointError, match="a/pipeline has no folder vae/"):
        open_checkpoint(SMALL, CheckpointFiles(vae="a/pipeline"))
    hub.add("a/two", SMALL / "vae").files |= {"diffusion_pytorch_model.safetensors": b"", "other.gguf": b""}
    hub.repositories["a/two"].files["x.gguf"] = hub.repositories["a/two"].files.pop(
        "diffusion_pytorch_model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"--vae a/two: name a file, as a/two:FILE; there are other.gguf, x.gguf"):
        open_checkpoint(SMALL, CheckpointFiles(vae="a/two"))


def test_tokenizers_that_are_nowhere_are_fetched(
    hub: Hub, models_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = tmp_path / "ComfyUI/models"
    shutil.copytree(models_path, models, ignore=shutil.ignore_patterns("tokenizers"))
    with pytest.raises(
        CheckpointError, match=r"no tokenizers in .*--tokenizers FOLDER. From the hub: openai/clip-vit-large"
    ):
        open_checkpoint(models)
    for repo, folder in zip(fetch.TOKENIZERS, ("tokenizer", "tokenizer_2"), strict=True):
        hub.add(repo, models_path / "tokenizers" / folder).files["pytorch_model.bin"] = b"not to be fetched"
    with caplog.at_level(logging.INFO, "kontext_trt.export.checkpoint"):
        opened = open_checkpoint(models)
    clip, t5 = ({file.name for file in folder.iterdir()} for folder in opened.tokenizers)
    assert "tokenizer.json" in clip & t5
    assert "pytorch_model.bin" not in clip | t5
    assert any(
        "taken from the hub, openai/clip-vit-large-patch14 and google/t5-v1_1-xxl" in one for one in caplog.messages
    )


def test_what_exists_here_is_taken_from_here(bfl: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SMALL, tmp_path / BFL)
    assert open_checkpoint(BFL).named == BFL
    assert bfl.asked == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "checkpoint gone does not exist; on the hub it would be named OWNER/NAME or OWNER/NAME:FILE"),
        (
            "black-forest-labs/FLUX.1-Kontekst",
            r"FLUX.1-Kontekst is no file or folder here, and http.* is no repository that can",
        ),
        (f"{BFL}:flux.safetensors", rf"{BFL} has no file flux.safetensors; it has ae.safetensors, "),
        ("a/lora", r"a/lora:lora.safetensors is not a FLUX transformer \(its first tensor is lora_A.weight\)"),
        (
            "a/several",
            r"a/several has 2 files of weights; name one, as a/several:a.gguf. There are a.gguf, b.safetensors",
        ),
        ("a/none", "a/none has neither model_index.json nor a file of weights that is read"),
    ],
)
def test_what_is_refused(bfl: Hub, tmp_path: Path, name: str, message: str) -> None:
    import torch

    save_file({"lora_A.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    hub = {"a/lora": {"lora.safetensors": (tmp_path / "lora.safetensors").read_bytes()}, "a/none": {"a.ckpt": b""}}
    for repo, files in {**hub, "a/several": {"a.gguf": b"", "b.safetensors": b""}}.items():
        bfl.repositories[repo] = HubRepository(files=dict(files))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(name)
    assert bfl.fetched() in ([], ["a/lora:lora.safetensors bytes=0-100000"])


def test_what_a_part_is_refused_for(bfl: Hub) -> None:
    for name, message in {
        "gone.safetensors": "gone.safetensors does not exist; on the hub it would be named OWNER/NAME",
        f"{BFL}:vae.safetensors": "has no file vae.safetensors; it has ae.safetensors, ",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(SMALL, CheckpointFiles(vae=name))


def test_names_that_lead_out_of_the_repository_are_not_taken(hub: Hub) -> None:
    files = {"../../x.safetensors": b"", "/etc/x.safetensors": b"", "y.ckpt": b""}
    hub.repositories["a/b"] = HubRepository(files=files)
    with pytest.raises(CheckpointError, match="has neither model_index"):
        open_checkpoint("a/b")


@pytest.mark.usefixtures("known")
def test_an_index_that_names_what_is_not_beside_it_is_refused(bfl: Hub) -> None:
    files = bfl.repositories[BFL].files
    files["vae/diffusion_pytorch_model.safetensors.index.json"] = b'{"weight_map": {"a": "../../x.safetensors"}}'
    with pytest.raises(CheckpointError, match=r"names a shard ../../x.safetensors, which is not beside it"):
        open_checkpoint(BFL)
