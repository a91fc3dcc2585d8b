"""OpenAI's images API, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image
from served import Held, error_of, served

from kontext_trt import Kontext
from kontext_trt.serving.options import Limits, ServingOptions

SMALL = {"size": "48x32"}
QUICK = {"num_inference_steps": 2, "seed": 1}


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    with served(kontext) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none is asked for", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def png(picture: Callable) -> bytes:
    return encoded(picture(144, 112))


def encoded(image: Image.Image, file_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format=file_format)
    return file.getvalue()


def decoded(text: str | None) -> Image.Image:
    assert text
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_an_edit_is_that_of_the_bare_call(client: openai.OpenAI, kontext: Kontext, png: bytes):
    answer = client.images.edit(image=png, prompt="make it blue", extra_body={**QUICK, "guidance_scale": 3})
    bare = kontext.edit(png, "make it blue", steps=2, seed=1, guidance=3.0)
    (made,) = answer.data
    assert np.array_equal(decoded(made.b64_json), bare.image)
    assert made.model_extra == {"seed": 1}
    assert answer.size == f"{bare.size[0]}x{bare.size[1]}"
    assert answer.output_format == "png"
    assert answer.usage.total_tokens == bare.tokens.total
    assert answer.usage.input_tokens_details.image_tokens == sum(bare.tokens.references)


def test_several_pictures_have_the_seed_and_those_after_it(client: openai.OpenAI, kontext: Kontext, png: bytes):
    answer = client.images.edit(image=[png], prompt="x", n=3, extra_body=QUICK)
    assert [made.model_extra["seed"] for made in answer.data] == [1, 2, 3]
    assert np.array_equal(decoded(answer.data[2].b64_json), kontext.edit(png, "x", steps=2, seed=3).image)


def test_a_batch_makes_the_same_pictures_in_one_call(kontext: Kontext, png: bytes):
    held = Held(kontext)
    held.go_on.set()
    with served(held, ServingOptions(limits=Limits(batch=2))) as address:
        body = {"prompt": "x", "n": 3, "seed": 7, "num_inference_steps": 1, "size": "32x32"}
        answer = httpx2.post(f"{address}/v1/images/generations", json=body, timeout=60).json()
    assert [one["seed"] for one in answer["data"]] == [7, 8, 9]
    assert [request.sampling.seed for request in held.asked] == [(7, 8), 9]
    alone = kontext.generate("x", steps=1, seed=8, size=(32, 32)).image
    assert np.abs(np.asarray(decoded(answer["data"][1]["b64_json"]), int) - np.asarray(alone, int)).max() <= 1


def test_several_references_are_taken(client: openai.OpenAI, kontext: Kontext, png: bytes, picture: Callable):
    other = encoded(picture(96, 96, seed=5), "JPEG")
    answer = client.images.edit(image=[png, other], prompt="x", extra_body=QUICK)
    bare = kontext.edit([png, other], "x", steps=2, seed=1)
    assert np.array_equal(decoded(answer.data[0].b64_json), bare.image)


def test_where_a_mask_is_transparent_is_edited(client: openai.OpenAI, picture: Callable):
    image = picture(144, 112)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (32, 32, 96, 80))
    mask = Image.merge("RGBA", (*image.split(), alpha))
    answer = client.images.edit(image=encoded(image), mask=encoded(mask), prompt="x", extra_body=QUICK)
    made, before = np.asarray(decoded(answer.data[0].b64_json)), np.asarray(image)
    inside = np.asarray(alpha) == 0
    assert np.array_equal(made[~inside], before[~inside])
    assert (made[inside] != before[inside]).any()


def test_a_generation_has_the_size_and_format_that_are_asked(client: openai.OpenAI, kontext: Kontext):
    answer = client.images.generate(
        prompt="a cat",
        size="48x32",
        output_format="webp",
        output_compression=60,
        quality="high",
        moderation="low",
        user="somebody",
        extra_body=QUICK,
    )
    made = decoded(answer.data[0].b64_json)
    assert (made.format, made.size) == ("WEBP", (48, 32))
    plain = client.images.generate(prompt="a cat", size="48x32", extra_body=QUICK)
    bare = kontext.generate("a cat", steps=2, seed=1, size=(48, 32))
    assert np.array_equal(decoded(plain.data[0].b64_json), bare.image)
    with httpx2.Client() as http:
        assert http.get(f"{client.base_url}models").json()["data"][0]["id"] == client.models.list().data[0].id


def test_an_address_is_fetched_from_memory(client: openai.OpenAI, url: str):
    answer = client.images.generate(
        prompt="x", size="32x32", response_format="url", output_format="jpeg", extra_body=QUICK
    )
    address = answer.data[0].url
    assert address.startswith(f"{url}/v1/results/")
    fetched = httpx2.get(address)
    assert fetched.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(fetched.content)).format == "JPEG"
    assert error_of(httpx2.get(f"{address}x"))["code"] == "not_found"


@pytest.mark.parametrize("kind", ["edit", "generate"])
def test_events_are_previews_and_the_picture(client: openai.OpenAI, png: bytes, kind: str):
    body: dict[str, Any] = {"num_inference_steps": 5, "seed": 1}
    asked = {"prompt": "x", "stream": True, "partial_images": 3, "extra_body": body}
    if kind == "edit":
        events = list(client.images.edit(image=png, **asked))
        plain = client.images.edit(image=png, prompt="x", extra_body=body)
    else:
        events = list(client.images.generate(**asked, **SMALL))
        plain = client.images.generate(prompt="x", extra_body=body, **SMALL)
    name = "image_edit" if kind == "edit" else "image_generation"
    assert [event.type for event in events] == [f"{name}.partial_image"] * 3 + [f"{name}.completed"]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    assert events[-1].b64_json == plain.data[0].b64_json, "previews change nothing"
    assert events[-1].usage.total_tokens == plain.usage.total_tokens
    sizes = {decoded(event.b64_json).size for event in events}
    assert len(sizes) == 1


def test_events_of_several_pictures_come_one_after_another(client: openai.OpenAI):
    events = list(
        client.images.generate(prompt="x", n=2, stream=True, partial_images=1, extra_body=QUICK, size="32x32")
    )
    assert [event.type.partition(".")[2] for event in events] == ["partial_image", "completed"] * 2


def test_what_is_refused_before_the_first_event_has_its_own_status(client: openai.OpenAI, png: bytes):
    cut = png[: len(png) // 2]
    with pytest.raises(openai.BadRequestError) as caught:
        list(client.images.edit(image=cut, prompt="x", stream=True, extra_body=QUICK))
    assert (caught.value.code, caught.value.param) == ("invalid_image", "image")


def test_what_fails_after_the_first_event_is_an_event(kontext: Kontext):
    """OpenAI's client raises for it; the stream does not end as if all were well."""

    class Breaking(Held):
        def run(self, request: Any, **watch: Any) -> Any:
            def step(done: int, of: int) -> None:
                if done == 3:
                    raise RuntimeError("a secret of this machine")

            return kontext.run(request, on_step=step, cancel=watch["cancel"], previews=watch["previews"])

    with (
        served(Breaking(kontext)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="x") as client,
        pytest.raises(openai.APIError) as caught,
    ):
        asked = {"prompt": "x", "partial_images": 3, "size": "32x32", "extra_body": {"num_inference_steps": 5}}
        list(client.images.generate(**asked, stream=True))
    assert caught.value.code == "internal_error"
    assert "secret" not in str(caught.value)


MISTAKES: list[tuple[dict[str, Any], type[openai.APIStatusError], str, str | None]] = [
    ({"prompt": ""}, openai.BadRequestError, "invalid_value", "prompt"),
    ({"prompt": "  "}, openai.BadRequestError, "invalid_value", "prompt"),
    ({"n": 11}, openai.BadRequestError, "invalid_value", "n"),
    ({"size": "17x16"}, openai.BadRequestError, "invalid_value", "size"),
    ({"size": "large"}, openai.BadRequestError, "invalid_value", "size"),
    ({"size": "8192x8192"}, openai.BadRequestError, "invalid_value", "size"),
    ({"background": "transparent"}, openai.BadRequestError, "invalid_value", "background"),
    ({"output_compression": 50}, openai.BadRequestError, "invalid_value", "output_compression"),
    ({"partial_images": 2}, openai.BadRequestError, "invalid_value", "partial_images"),
    ({"model": "gpt-image-2"}, openai.NotFoundError, "model_not_found", "model"),
    ({"extra_body": {"seed": -1}}, openai.BadRequestError, "invalid_value", "seed"),
    ({"extra_body": {"seed": 2**64}}, openai.BadRequestError, "invalid_value", "seed"),
    ({"extra_body": {"num_inference_steps": 0}}, openai.BadRequestError, "invalid_value", "num_inference_steps"),
    ({"extra_body": {"num_inference_steps": 101}}, openai.BadRequestError, "invalid_value", "num_inference_steps"),
    ({"extra_body": {"guidance_scale": "nan"}}, openai.BadRequestError, "invalid_value", "guidance_scale"),
    ({"extra_body": {"steps": 3}}, openai.BadRequestError, "unknown_parameter", "steps"),
    ({"extra_body": {"lora": "style"}}, openai.BadRequestError, "lora_not_supported", "lora"),
    ({"extra_body": {"session": "no-such"}}, openai.NotFoundError, "session_not_found", "session"),
    ({"extra_body": {"session": "new"}, "n": 2}, openai.BadRequestError, "invalid_value", "n"),
    ({"extra_body": {"turn": 1}}, openai.BadRequestError, "invalid_value", "turn"),
    ({"image": b"no picture"}, openai.BadRequestError, "invalid_image", "image"),
    ({"mask": b"no picture"}, openai.BadRequestError, "invalid_image", "mask"),
    ({"stream": True, "response_format": "url"}, openai.BadRequestError, "invalid_value", "response_format"),
]


@pytest.mark.parametrize(("change", "kind", "code", "param"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_are_typed(client: openai.OpenAI, png: bytes, change: dict, kind: type, code: str, param: str | None):
    with pytest.raises(kind) as caught:
        client.images.edit(**{"image": png, "prompt": "x", **change})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("name", ["image", "images", "mask"])
def test_no_address_is_fetched(url: str, png: bytes, name: str):
    data = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    value: Any = [{"image_url": "https://example.org/cat.png"}] if name == "images" else "https://example.org/cat.png"
    body = {"prompt": "x", **({"image": data} if name == "mask" else {}), name: value}
    answer = httpx2.post(f"{url}/v1/images/edits", json=body)
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["code"], error["param"]) == ("url_not_supported", "mask" if name == "mask" else "image")
    assert "nothing is fetched" in error["message"]


@pytest.mark.parametrize("form", ["plain", "data", "object", "list"])
def test_pictures_in_json(url: str, kontext: Kontext, png: bytes, form: str):
    plain = base64.b64encode(png).decode()
    data = f"data:image/png;base64,{plain}"
    fields: dict[str, Any] = {
        "plain": {"image": plain},
        "data": {"image": data},
        "object": {"images": [{"image_url": data}]},
        "list": {"image": [data]},
    }[form]
    answer = httpx2.post(f"{url}/v1/images/edits", json={"prompt": "x", **QUICK, **fields})
    made = decoded(answer.json()["data"][0]["b64_json"])
    assert np.array_equal(made, kontext.edit(png, "x", steps=2, seed=1).image)


@pytest.mark.parametrize(
    "picture_field", ["/etc/hostname", "file:///etc/hostname", "../x.png", "data:nothing", 7, {"a": 1}]
)
def test_a_text_is_no_path(url: str, picture_field: Any):
    answer = httpx2.post(f"{url}/v1/images/edits", json={"prompt": "x", "image": picture_field})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "image"


def test_an_edit_needs_a_picture_and_a_generation_has_none(url: str, png: bytes):
    error = error_of(httpx2.post(f"{url}/v1/images/edits", json={"prompt": "x"}))
    assert (error["code"], error["param"]) == ("missing_required_parameter", "image")
    files = {"image": ("a.png", png, "image/png")}
    error = error_of(httpx2.post(f"{url}/v1/images/generations", data={"prompt": "x"}, files=files))
    assert "a generation has no picture; ask /v1/images/edits" in error["message"]


def test_a_prompt_that_was_cut_is_told(url: str):
    body = {"prompt": "word " * 3000, "size": "32x32", **QUICK}
    answer = httpx2.post(f"{url}/v1/images/generations", json=body).json()
    assert "this was cut" in answer["warnings"][0]


def test_a_session_goes_on_from_its_last_turn(client: openai.OpenAI, kontext: Kontext, url: str, png: bytes):
    data = {"prompt": "make it blue", "num_inference_steps": "2", "seed": "1", "session": "new"}
    first = httpx2.post(f"{url}/v1/images/edits", data=data, files={"image": ("a.png", png)}).json()
    name = first["session"]
    second = httpx2.post(f"{url}/v1/images/edits", json={"prompt": "add a hat", "session": name, **QUICK}).json()
    again = httpx2.post(
        f"{url}/v1/images/edits", json={"prompt": "make it blue", "session": name, "turn": 0, **QUICK}
    ).json()
    assert [first["turn"], second["turn"], again["turn"]] == [1, 2, 3]
    assert again["data"][0]["b64_json"] == first["data"][0]["b64_json"]
    with kontext.session(png) as session:
        session.edit("make it blue", steps=2, seed=1)
        turn = session.edit("add a hat", steps=2, seed=1)
        assert np.array_equal(decoded(second["data"][0]["b64_json"]), turn.picture())
    assert httpx2.delete(f"{url}/v1/sessions/{name}").json() == {"deleted": True}
    gone = httpx2.post(f"{url}/v1/images/edits", json={"prompt": "x", "session": name})
    assert error_of(gone)["code"] == "session_not_found"


def wait_for(look: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_cancels_between_two_steps(kontext: Kontext, stream: bool):
    held = Held(kontext)
    body = {"prompt": "x", "size": "32x32", "num_inference_steps": 50, "stream": stream, "partial_images": 3 * stream}
    with served(held) as address:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{address}/v1/images/generations", json=body, timeout=0.3)
        wait_for(lambda: held.done)
        assert held.done == ["Cancelled"]
        held.go_on.set()
        assert httpx2.post(
            f"{address}/v1/images/generations", json={**body, "stream": False, "partial_images": 0}
        ).is_success
        assert 'kontext_cancelled_total{reason="client_closed_request"} 1.0' in httpx2.get(f"{address}/metrics").text


def test_one_that_waits_and_whose_client_left_never_runs(kontext: Kontext):
    held = Held(kontext)
    body = {"prompt": "x", "size": "32x32", "num_inference_steps": 1}
    with served(held) as address:
        first = threading.Thread(
            target=httpx2.post, args=(f"{address}/v1/images/generations",), kwargs={"json": body, "timeout": 60}
        )
        first.start()
        assert held.running.wait(30)
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{address}/v1/images/generations", json=body, timeout=0.2)
        wait_for(lambda: "kontext_waiting 0.0" in httpx2.get(f"{address}/metrics").text)
        held.go_on.set()
        first.join()
        wait_for(lambda: "kontext_admitted 0.0" in httpx2.get(f"{address}/metrics").text)
    assert len(held.asked) == 1


def test_a_deadline_ends_what_runs(kontext: Kontext):
    held = Held(kontext)
    with served(held, ServingOptions(limits=Limits(seconds=0.3))) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=2)
        with client, pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt="x", size="32x32")
        assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
        assert len(held.asked) == 1, "the client does not repeat it"
        wait_for(lambda: held.done == ["Cancelled"])


def test_beyond_the_queue_is_429_and_the_client_comes_again(kontext: Kontext):
    held = Held(kontext)
    body = {"prompt": "x", "size": "32x32", "num_inference_steps": 1}
    with served(held, ServingOptions(limits=Limits(waiting=1))) as address:
        ask = {"json": body, "timeout": 60}
        threads = [
            threading.Thread(target=httpx2.post, args=(f"{address}/v1/images/generations",), kwargs=ask)
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: "kontext_admitted 2.0" in httpx2.get(f"{address}/metrics").text)
        refused = httpx2.post(f"{address}/v1/images/generations", json=body)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        error = error_of(refused)
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        threading.Timer(0.2, held.go_on.set).start()
        with openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=3) as client:
            assert client.images.generate(prompt="x", size="32x32", extra_body={"num_inference_steps": 1}).data
        for thread in threads:
            thread.join()


def test_the_example_bundle_has_the_models_name(client: openai.OpenAI, bundle_path: Path):
    (card,) = client.models.list().data
    assert card.id == bundle_path.name
    assert client.models.retrieve(card.id) == card
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("another")
    assert caught.value.code == "model_not_found"
