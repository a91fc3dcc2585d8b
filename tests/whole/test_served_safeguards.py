"""A server with filters and a signature: what clients are told, what is counted, and that what leaves is signed."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from certificates import write_files
from PIL import Image
from served import error_of, served

from kontext_trt import Content, CredentialState, Kontext, PictureSigner, Stage, Verdict, WordList, read_credentials
from kontext_trt.runtime.outputs.provenance import EDITED, GENERATED
from kontext_trt.serving.options import ServingOptions

QUICK = {"size": "48x32", "num_inference_steps": 1, "seed": 1}


class Blue:
    """Refuses inputs that are blue, and outputs of prompts about blue."""

    name, stages = "blue", frozenset({Stage.INPUT, Stage.OUTPUT})

    def check(self, content: Content) -> Verdict:
        assert content.picture is not None
        if content.stage is Stage.INPUT:
            return Verdict(allowed=content.picture.getpixel((0, 0)) != (0, 0, 255), reason="secret reason")
        return Verdict(allowed="blue" not in content.prompt)


def encoded(colour: str, file_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(file, format=file_format)
    return file.getvalue()


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    filters = [WordList(["weapon"], name="secret-list.txt"), Blue()]
    with served(Kontext(kontext.bundle, kontext.executor, filters=filters)) as address:
        yield address


def test_what_is_refused_has_openais_code(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for prompt, image, message, param in (
            ("a WEAPON", encoded("red"), "the prompt was refused by this server's filters", "prompt"),
            ("a cat", encoded("blue"), "the input picture was refused by this server's filters", "image"),
            ("make it blue", encoded("red"), "the output picture was refused by this server's filters", None),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                client.images.edit(image=image, prompt=prompt, extra_body={"num_inference_steps": 1})
            error = caught.value
            assert (error.code, error.param, error.type) == (
                "content_policy_violation",
                param,
                "invalid_request_error",
            )
            assert message in str(error)
            assert "secret" not in str(error)
        made = client.images.edit(image=encoded("red"), prompt="a cat", extra_body={"num_inference_steps": 1})
        assert made.data[0].b64_json
    text = httpx2.get(f"{url}/metrics").text
    assert 'kontext_filtered_total{answer="refused",filter="secret-list.txt",stage="prompt"} 1.0' in text
    assert 'kontext_filtered_total{answer="refused",filter="blue",stage="output picture"} 1.0' in text


def test_no_preview_is_shown_before_a_filter_has_looked(url: str) -> None:
    asked = {"prompt": "a cat", **QUICK, "num_inference_steps": 4, "stream": True, "partial_images": 2}
    text = httpx2.post(f"{url}/v1/images/generations", json=asked, timeout=60).text
    assert [line for line in text.splitlines() if line.startswith("event:")] == ["event: image_generation.completed"]
    refused = httpx2.post(f"{url}/v1/images/generations", json={**asked, "prompt": "blue"}, timeout=60)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "content_policy_violation")


@pytest.mark.parametrize(
    ("prompt", "status"), [("a weapon", "Request Moderated"), ("make it blue", "Content Moderated"), ("a cat", "Ready")]
)
def test_bfls_protocol_has_states_for_it(kontext: Kontext, prompt: str, status: str) -> None:
    class OneStep(Kontext):
        def run(self, request: Any, **watch: Any) -> Any:
            from dataclasses import replace

            return super().run(replace(request, sampling=replace(request.sampling, steps=1)), **watch)

    filters = [WordList(["weapon"]), Blue()]
    with served(OneStep(kontext.bundle, kontext.executor, filters=filters)) as url:
        submitted = httpx2.post(f"{url}/v1/flux-kontext-pro", json={"prompt": prompt}).json()
        deadline = time.monotonic() + 60
        while (state := httpx2.get(submitted["polling_url"]).json())["status"] == "Pending":
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert state["status"] == status
    assert (state["result"] is None) == (status != "Ready")
    assert (state["details"] or {}).get("code") == (None if status == "Ready" else "content_policy_violation")


@pytest.mark.parametrize(
    "file_format", ["png", pytest.param("jpeg", marks=pytest.mark.check), pytest.param("webp", marks=pytest.mark.check)]
)
def test_what_leaves_is_signed(kontext: Kontext, tmp_path: Path, picture: Callable, file_format: str) -> None:
    files = write_files(tmp_path)
    options = ServingOptions(signer=PictureSigner.open(files.chain, files.key))
    given = io.BytesIO()
    picture(48, 32).save(given, format="PNG")
    image = base64.b64encode(given.getvalue()).decode()

    def ask(url: str, route: str, **fields: Any) -> tuple[dict[str, Any], bytes]:
        asked = {"prompt": "a cat", **QUICK, "output_format": file_format, **fields}
        answer = httpx2.post(f"{url}/v1/images/{route}", json=asked, timeout=60).json()
        return answer, base64.b64decode(answer["data"][0]["b64_json"])

    with served(kontext) as url:
        _, plain = ask(url, "generations")
    with served(kontext, options) as url:
        _, generated = ask(url, "generations")
        _, edited = ask(url, "edits", image=[image, image])
        begun, first = ask(url, "edits", size=None, image=image, session="new")
        _, second = ask(url, "edits", size=None, session=begun["session"])
        streamed = httpx2.post(
            f"{url}/v1/images/generations",
            json={"prompt": "x", **QUICK, "stream": True, "partial_images": 1, "num_inference_steps": 3},
            timeout=60,
        ).text
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(plain))), np.asarray(Image.open(io.BytesIO(generated))))
    trust = files.authority.read_bytes()
    for data, source, ingredients in (
        (generated, GENERATED, ()),
        (edited, EDITED, ("parentOf", "componentOf")),
        (first, EDITED, ("parentOf",)),
        (second, EDITED, ("parentOf",)),
    ):
        found = read_credentials(data, trust=trust)
        assert (found.state, found.sources, found.ingredients) == (CredentialState.TRUSTED, (source,), ingredients)
        assert found.generation["bundle"] == kontext.bundle.fingerprint
    assert "partial_image" not in streamed, "nothing unsigned leaves"


def test_what_cannot_be_signed_does_not_leave(
    kontext: Kontext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_files(tmp_path)
    signer = PictureSigner.open(files.chain, files.key)
    monkeypatch.setattr("kontext_trt.runtime.outputs.provenance._manifest", lambda *_: {"assertions": []})
    with served(kontext, ServingOptions(signer=signer)) as url:
        answer = httpx2.post(
            f"{url}/v1/images/edits",
            json={"prompt": "x", **QUICK, "image": base64.b64encode(encoded("red")).decode()},
            timeout=60,
        )
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")
