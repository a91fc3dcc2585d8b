"""How places on the hub are written."""

from __future__ import annotations

import pytest

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint.places import USUAL, HubPlace, parse_place, usual_places

KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (KONTEXT, HubPlace(repo=KONTEXT)),
        (f"{KONTEXT}:ae.safetensors", HubPlace(repo=KONTEXT, file="ae.safetensors")),
        (f"{KONTEXT}@refs/pr/3:vae/a.gguf", HubPlace(repo=KONTEXT, revision="refs/pr/3", file="vae/a.gguf")),
        (f"https://huggingface.co/{KONTEXT}", HubPlace(repo=KONTEXT)),
        (f"https:/huggingface.co/{KONTEXT}/blob/v1/a.gguf", HubPlace(repo=KONTEXT, revision="v1", file="a.gguf")),
        (f"hf://{KONTEXT}@v1/vae/a.gguf", HubPlace(repo=KONTEXT, revision="v1", file="vae/a.gguf")),
    ],
)  # fmt: skip
def test_what_names_a_place(text: str, place: HubPlace) -> None:
    assert parse_place(text) == place
    assert parse_place(str(place)) == place


@pytest.mark.parametrize(
    "text", ["bundle", "/a/b", "./a/b", "../a", "~/a", "a/b/c", "a/b/", "a/b:", "a/b:../c", "a b/c", "a/b@", ".cache/x"]
)
def test_what_can_only_be_a_path(text: str) -> None:
    assert parse_place(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://huggingface.co/datasets/a/b", "is the address of a dataset on the hub; a checkpoint is a model"),
        ("https://example.com/a/b", "is no address of a model on the hub: "),
        ("hf://a", "is no address of a model on the hub: "),
    ],
)
def test_addresses_of_something_else(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_place(text)


def test_where_parts_usually_come_from_are_places() -> None:
    assert all(
        parse_place(text) == HubPlace(repo=text.partition(":")[0], file=text.partition(":")[2])
        for text in USUAL.values()
    )
    assert usual_places(["clip"]) == "--clip comfyanonymous/flux_text_encoders:clip_l.safetensors"
