"""LoRAs that requests name: files of one folder, and no other."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image
from served import error_of, served

from kontext_trt import Bundle, BundleError, Kontext, OptionError
from kontext_trt.serving.loras import LoraFolder
from kontext_trt.serving.options import ServingOptions
from kontext_trt.serving.refusals import Refusal

Branched = Callable[..., Bundle]
QUICK = {"num_inference_steps": 1, "seed": 1, "size": "32x32"}


@pytest.fixture(scope="module")
def folder(lora_file: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two LoRAs and what is none of them, and beside it a file that links in it lead to."""
    around = tmp_path_factory.mktemp("around")
    folder = around / "loras"
    folder.mkdir()
    for seed in (1, 2):
        shutil.copy(lora_file(seed), folder / f"{seed}.safetensors")
    shutil.copy(lora_file(1), around / "outside.safetensors")
    (folder / "with:0.5").write_bytes((folder / "1.safetensors").read_bytes())
    (folder / "noise.safetensors").write_bytes(b"no tensors")
    (folder / ".hidden").write_bytes((folder / "1.safetensors").read_bytes())
    (folder / "below").mkdir()
    (folder / "below" / "deep.safetensors").write_bytes((folder / "1.safetensors").read_bytes())
    (folder / "link.safetensors").symlink_to("../outside.safetensors")
    (folder / "within.safetensors").symlink_to("1.safetensors")
    return folder


@pytest.fixture(scope="module")
def opened(branched_bundle: Branched) -> Iterator[Kontext]:
    with Kontext.open(branched_bundle()) as kontext:
        yield kontext


@pytest.fixture(scope="module")
def url(opened: Kontext, folder: Path) -> Iterator[str]:
    with served(opened, ServingOptions(lora_folder=folder)) as address:
        yield address


def made_picture(answer: httpx2.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    (made,) = answer.json()["data"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(made["b64_json"]))))


def test_each_request_has_the_loras_that_it_names(url: str, opened: Kontext, folder: Path):
    def bare(*loras: tuple[Path, float]) -> np.ndarray:
        return np.asarray(opened.generate("x", steps=1, seed=1, size=(32, 32), loras=loras).image)

    one, two = folder / "1.safetensors", folder / "2.safetensors"
    plain = bare()
    assert not np.array_equal(bare((one, 0.5)), plain)
    body, address = {"prompt": "x", **QUICK}, f"{url}/v1/images/generations"
    for lora, wanted in (
        ("1.safetensors:0.5", bare((one, 0.5))),
        (None, plain),
        (["1.safetensors:0.5", "2.safetensors:-1.5"], bare((one, 0.5), (two, -1.5))),
        ([], plain),
        ("within.safetensors", bare((one, 1.0))),
    ):
        assert np.array_equal(made_picture(httpx2.post(address, json={**body, "lora": lora}, timeout=60)), wanted), lora
    files = [(name, (None, str(value))) for name, value in body.items()]
    files += [("lora", (None, "1.safetensors:0.5")), ("lora", (None, "2.safetensors:-1.5"))]
    answer = httpx2.post(address, files=files, timeout=60)
    assert np.array_equal(made_picture(answer), bare((one, 0.5), (two, -1.5)))


def test_openais_client_names_loras_of_edits_and_of_a_sessions_turns(
    url: str, opened: Kontext, folder: Path, picture: Callable
):
    file = io.BytesIO()
    picture(48, 48).save(file, format="PNG")
    loras = ["1.safetensors:0.5", "2.safetensors"]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        answer = client.images.edit(
            image=file.getvalue(), prompt="x", extra_body={**QUICK, "session": "new", "lora": loras}
        )
    chosen = [(folder / "1.safetensors", 0.5), (folder / "2.safetensors", 1.0)]
    bare = opened.edit(file.getvalue(), "x", steps=1, seed=1, size=(32, 32), loras=chosen)
    (made,) = answer.data
    assert made.b64_json
    assert np.array_equal(Image.open(io.BytesIO(base64.b64decode(made.b64_json))), bare.image)


@pytest.mark.parametrize(
    ("lora", "code"),
    [
        ("none.safetensors", "lora_not_found"),
        ("1", "lora_not_found"),
        ("", "lora_not_found"),
        ("../outside.safetensors", "lora_not_found"),
        ("./1.safetensors", "lora_not_found"),
        ("below/deep.safetensors", "lora_not_found"),
        ("below", "lora_not_found"),
        (".hidden", "lora_not_found"),
        ("link.safetensors", "lora_not_found"),
        ("/etc/passwd", "lora_not_found"),
        ("1.safetensors\0", "lora_not_found"),
        ("1.safetensors:strong", "invalid_value"),
        ("1.safetensors:nan", "invalid_value"),
        ("1.safetensors:0", "invalid_value"),
        ("1.safetensors:1e9", "invalid_value"),
        ("noise.safetensors", "invalid_lora"),
        (["1.safetensors"] * 3, "invalid_lora"),
        (["1.safetensors"] * 17, "invalid_value"),
        ({"name": "1.safetensors"}, "invalid_value"),
        ([1], "invalid_value"),
    ],
)
def test_what_is_no_lora_of_the_folder_is_refused(url: str, folder: Path, lora: object, code: str):
    body = {"prompt": "x", **QUICK, "lora": lora}
    answer = httpx2.post(f"{url}/v1/images/generations", json=body, timeout=60)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert (error["param"], error["code"]) == ("lora", code)
    assert str(folder.parent) not in answer.text


def test_the_names_are_listed(url: str):
    listed = httpx2.get(f"{url}/v1/loras").json()
    names = ["1.safetensors", "2.safetensors", "noise.safetensors", "with:0.5", "within.safetensors"]
    assert listed == {"object": "list", "data": [{"id": name, "object": "lora"} for name in names]}


def test_a_name_with_a_colon_is_a_name_first(branched_bundle: Branched, folder: Path):
    loras = LoraFolder(folder, branched_bundle())
    (whole,) = loras.choices("with:0.5") or ()
    (scaled,) = loras.choices("with:0.5:0.25") or ()
    assert (whole.path, whole.scale, scaled.path, scaled.scale) == (folder / "with:0.5", 1, folder / "with:0.5", 0.25)


def test_a_server_without_a_folder_takes_none(kontext: Kontext):
    loras = LoraFolder(None, kontext.bundle)
    assert loras.choices(None) is None
    for ask in (loras.names, lambda: loras.choices("a")):
        with pytest.raises(Refusal, match="started with --lora-folder FOLDER") as caught:
            ask()
        assert (caught.value.status, caught.value.code) == (400, "lora_not_supported")


def test_a_folder_that_is_none_and_a_bundle_without_branches_are_refused_at_once(kontext: Kontext, tmp_path: Path):
    with pytest.raises(OptionError, match="none is no folder; --lora-folder is a folder of LoRA files"):
        LoraFolder(tmp_path / "none", kontext.bundle)
    with pytest.raises(BundleError, match="was exported without --lora-rank"):
        LoraFolder(tmp_path, kontext.bundle)
