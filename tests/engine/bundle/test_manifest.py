"""A manifest says what can be computed with, or is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from kontext_trt import Bundle, BundleError
from kontext_trt.engine.bundle.manifest import parse_manifest


def changed(bundle: Bundle, change: Callable[[Any], None]) -> bytes:
    document = json.loads(bundle.manifest.to_json())
    change(document)
    return json.dumps(document).encode()


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def branches(component: str = "denoiser", *, rank: int = 4, times: int = 1, names: int = 1, **extents: int) -> Any:
    listed = [{"name": f"a{number}", "inputs": 64, "outputs": 64} | extents for number in range(names)] * times
    return {"rank": rank, "layers": {component: listed}}


FLOW = ("model", "flow")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("model", "dims", "hidden", value=0), "Expected `int` >= 1"),
        (put("model", "dims", "text_length", value=-512), "Expected `int` >= 1"),
        (put("model", "dims", "hidden", value=10**30), r"\$\.model\.dims\.hidden"),
        (put("model", "rope_theta", value=0.0), "Expected `float` > 0.0"),
        (put("model", "rope_theta", value=1e300), "Expected `float` <= "),
        (put("model", "rope_axes", 0, value=3), "multiple of 2"),
        (put("model", "rope_axes", 0, value=64), r"rope axes \[64, 14, 14\] do not make 16 pairs"),
        (put("model", "sizes", value=[]), "length >= 1"),
        (put("model", "sizes", 0, value=[0, 16]), "Expected `int` >= 16"),
        (put("model", "sizes", 0, value=[100, 100]), "multiple of 16"),
        (put("model", "num_double_blocks", value=1 << 40), "num_double_blocks"),
        (put(*FLOW, "steps", value=0), "Expected `int` >= 1"),
        (put(*FLOW, "max_tokens", value=256), "its noise schedule has no shift for every number of tokens"),
        (put(*FLOW, "max_tokens", value=257), "its noise schedule has no shift"),
        (put(*FLOW, "base_shift", value=1e308), "Expected `float` <= 16"),
        (put("tokenizers", "t5", "length", value=16_000_000), r"tokenizers\[...\]\.length"),
        (put("tokenizers", "t5", "length", value=511), "the tokenizer of t5 gives 511 tokens, and its graph takes 512"),
        (put("files", 0, "size_bytes", value=1 << 40), "size_bytes"),
        (put("files", 0, "sha256", value="x"), "sha256"),
        (put("files", 0, "path", value="./networks.json"), "is not how a path is written"),
        (lambda document: document["files"].append(document["files"][0]), "a file is listed twice"),
        (lambda document: [one.update(size_bytes=32 << 20) for one in document["files"]], "268,435,456 bytes together"),
        (put("graphs", "unet", value=None), "Expected `object`, got `null`"),
        (lambda document: document["graphs"].update(unet=document["graphs"]["t5"]), "there is no component unet"),
        (put("graphs", "clip", "path", value="tokenizers/t5.json"), "the graph of clip is tokenizers/t5.json, not an"),
        (put("graphs", "denoiser", "precision", value="fp16"), "the transformer hand values over in fp16 and fp32"),
        (put("source", value="\x1b[2J"), r"\$\.source"),
        (put("producer", value="x\u202ey"), r"\$\.producer"),
        (put("layout", value="x" * 5000), "length <= 4096"),
        (put("schema", value="two"), "it has no schema"),
        (put("schema", value=2), "bundles of schema 2 have no features"),
        (put("features", value=["x\n"]), r"\$\.features"),
        (put("branches", value=branches(rank=0)), "Expected `int` >= 1"),
        (put("branches", value=branches(rank=1 << 12)), "Expected `int` <= 1024"),
        (put("branches", value=branches(inputs=-1)), "Expected `int` >= 1"),
        (
            put("branches", value=branches("vae_decoder")),
            "branches of vae_decoder, which is no part of the transformer",
        ),
        (put("branches", value=branches("unet")), "branches of unet, which is no part of the transformer"),
        (put("branches", value=branches(times=2)), "two branches of one layer of denoiser"),
        (put("branches", value=branches(inputs=1 << 20, rank=1024, outputs=1 << 20, names=64)), "values"),
    ],
)
def test_odd_values_are_refused_with_their_place(bundle: Bundle, change: Callable, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        parse_manifest(changed(bundle, change), "here")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(b'{"schema": ' + b"9" * 5000 + b"}", id="a long number"),
        pytest.param(b'{"schema": 2}', id="a schema alone"),
        pytest.param(b'{"schema": 1e999}', id="an endless number"),
    ],
)
def test_what_is_no_manifest_is_said_in_a_sentence(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"^here (is not a bundle manifest|is damaged|has schema).*again$"):
        parse_manifest(data, "here")


def test_one_flipped_bit_never_ends_in_another_error(bundle: Bundle) -> None:
    data = bundle.manifest.to_json()
    for position in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        with suppress(BundleError):
            parse_manifest(bytes(flipped), "here")
