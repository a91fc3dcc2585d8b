"""Opening a bundle: what is missing, altered, half-written or too new is refused before anything runs."""

import json
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from relisted import relist

from kontext_trt import Bundle, BundleError, Kontext
from kontext_trt.engine.bundle.manifest import SCHEMA
from kontext_trt.engine.bundle.tensor_file import TensorFile

GRAPH = "graphs/denoiser.onnx"


def own_bytes(file: Path) -> Path:
    """Give a linked file bytes of its own, so that damaging it damages nobody else's."""
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data)
    return file


def edit_manifest(bundle: Path, **changes: object) -> None:
    file = bundle / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_opens_in_milliseconds_and_verifies(bundle_path: Path):
    start = time.process_time()
    bundle = Bundle.open(bundle_path)
    assert time.process_time() - start < 0.2
    assert bundle.verify(whole=True).problems == ()


def test_manifest_survives_a_round_trip(bundle: Bundle):
    from kontext_trt.engine.bundle.manifest import parse_manifest

    assert parse_manifest(bundle.manifest.to_json(), "x") == bundle.manifest


def test_missing_bundle(tmp_path: Path):
    with pytest.raises(BundleError, match=r"gone does not exist; make it with: kontext-trt export CHECKPOINT .*gone"):
        Bundle.open(tmp_path / "gone")


def test_a_file_is_no_bundle(tmp_path: Path):
    (tmp_path / "cat.png").touch()
    with pytest.raises(BundleError, match=r"cat\.png is a file, and a bundle is a folder"):
        Bundle.open(tmp_path / "cat.png")


def test_folder_that_is_no_bundle(tmp_path: Path):
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("name", [GRAPH, "tokenizers/t5.json", "graphs/weights/clip.model.safetensors"])
def test_missing_file(bundle_copy: Path, name: str):
    (bundle_copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing; export it again from"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("name", [GRAPH, "tokenizers/t5.json", "graphs/weights/clip.model.safetensors"])
def test_half_written_file(bundle_copy: Path, name: str):
    file = own_bytes(bundle_copy / name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BundleError, match=rf"{name} is cut short or altered: [\d,]+ bytes of [\d,]+"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("name", [GRAPH, "tokenizers/clip.json"])
def test_altered_file(bundle_copy: Path, name: str):
    file = bundle_copy / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} was altered \(SHA-256 differs\)"):
        Bundle.open(bundle_copy)


def test_other_weights_header(bundle_copy: Path):
    file = own_bytes(bundle_copy / "graphs/weights/clip.model.safetensors")
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="is another safetensors file than was exported"):
        Bundle.open(bundle_copy)


def test_other_weights_of_the_same_shapes_are_found_by_sampling(bundle_copy: Path):
    """A fine-tune has the same header and size: opening cannot tell, verifying can."""
    name = "graphs/weights/transformer.diffusion_pytorch_model.safetensors"
    file = own_bytes(bundle_copy / name)
    data = bytearray(file.read_bytes())
    entry = TensorFile.open(file).tensors["transformer_blocks.1.attn.to_k.weight"]
    data[entry.offset : entry.offset + entry.size_bytes] = bytes(entry.size_bytes)
    file.write_bytes(data)
    assert Bundle.open(bundle_copy).verify().problems == (f"{name} holds other weights than were exported",)


def test_one_flipped_byte_is_found_by_reading_all(bundle_copy: Path):
    name = "graphs/weights/transformer.diffusion_pytorch_model.safetensors"
    file = own_bytes(bundle_copy / name)
    data = bytearray(file.read_bytes())
    largest = max(TensorFile.open(file).tensors.values(), key=lambda entry: entry.size_bytes)
    data[largest.offset + largest.size_bytes - 1] ^= 1
    file.write_bytes(data)
    opened = Bundle.open(bundle_copy)
    assert opened.verify().problems == ()
    assert opened.verify(whole=True).problems == (f"{name} was altered (SHA-256 differs)",)


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (1, "graphs/denoiser.onnx reads weights where its files hold none: {name}"),
        (1 << 40, "does not give to this graph"),
    ],
)
def test_a_graph_that_points_beside_the_weights_is_found(bundle_copy: Path, offset: int, words: str):
    """Everything is as the manifest says, and an initializer begins a byte too late, or past the file's end."""
    model = onnx.load(bundle_copy / GRAPH, load_external_data=False)
    outside = min((tensor for tensor in model.graph.initializer if tensor.external_data), key=_offset)
    (entry,) = (entry for entry in outside.external_data if entry.key == "offset")
    entry.value = str(_offset(outside) + offset)
    relist(bundle_copy, GRAPH, model.SerializeToString())
    (problem,) = Bundle.open(bundle_copy).verify().problems
    assert words.format(name=outside.name) in problem


def _offset(tensor: onnx.TensorProto) -> int:
    return next(int(entry.value) for entry in tensor.external_data if entry.key == "offset")


def test_verifying_says_what_was_compared_and_what_was_not(bundle: Bundle):
    sampled, whole = bundle.verify(), bundle.verify(whole=True)
    assert any("4 weights files, and 1024 bytes of each" in words for words in sampled.checked)
    assert any("the other bytes of the weights" in words for words in sampled.unchecked)
    assert "every byte of 4 weights files" in whole.checked
    assert not any("other bytes" in words for words in whole.unchecked)
    unhashed = replace(bundle.manifest, weights=tuple(replace(one, sha256=None) for one in bundle.manifest.weights))
    found = Bundle(path=bundle.path, manifest=unhashed).verify(whole=True)
    assert "every byte of 4 weights files" not in found.checked
    assert any("the export recorded no hash" in words for words in found.unchecked)


def test_newer_manifest(bundle_copy: Path):
    edit_manifest(bundle_copy, schema=SCHEMA + 1, producer="kontext-trt 9.0", invention=True)
    with pytest.raises(BundleError, match=r"has schema 4, written by kontext-trt 9\.0; this version reads 2 to 3: up"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a bundle manifest"),
        ("{", "is not a bundle manifest"),
        ("[]", "is not a bundle manifest"),
        ("{}", "is not a bundle manifest"),
        ('{"schema": "1"}', "is not a bundle manifest"),
        ('{"schema": 2}', r"is damaged: Object missing required field"),
        (
            '{"schema": 1, "producer": "kontext-trt 0.1"}',
            r"has schema 1, written by kontext-trt 0.1; this version reads 2 to 3: exp",
        ),
    ],
)
def test_damaged_manifest(bundle_copy: Path, content: str, message: str):
    (bundle_copy / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle_copy)


def test_manifest_without_a_component(bundle_copy: Path):
    graphs = json.loads((bundle_copy / "manifest.json").read_text())["graphs"]
    del graphs["t5"]
    edit_manifest(bundle_copy, graphs=graphs)
    with pytest.raises(BundleError, match="lists no graph for t5"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/file", "graphs/../../file"])
def test_manifest_that_reaches_out_of_the_bundle(bundle_copy: Path, path: str):
    files = json.loads((bundle_copy / "manifest.json").read_text())["files"]
    edit_manifest(bundle_copy, files=[*files, {"path": path, "size_bytes": 1, "sha256": "0" * 64}])
    with pytest.raises(BundleError, match=r"is no place inside .*; do not use this bundle"):
        Bundle.open(bundle_copy)


def test_manifest_that_uses_what_it_does_not_list(bundle_copy: Path):
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    edit_manifest(bundle_copy, files=[record for record in manifest["files"] if record["path"] != GRAPH])
    with pytest.raises(BundleError, match=rf"{GRAPH} is used and not listed"):
        Bundle.open(bundle_copy)
    edit_manifest(bundle_copy, files=manifest["files"], tokenizers={})
    with pytest.raises(BundleError, match="lists no tokenizer for clip"):
        Bundle.open(bundle_copy)


def test_what_a_bundle_cannot_do_is_said_by_name(bundle: Bundle, older_bundle: Bundle):
    bundle.require("masks")
    bundle.require("velocity")
    with pytest.raises(BundleError, match=r"does not have the feature lora, .* \(it has masks, velocity\); export it"):
        bundle.require("lora")
    with pytest.raises(BundleError, match=r"the feature masks, which a request needs \(it has none\); export it again"):
        older_bundle.require("masks")


def test_fingerprint_is_of_the_content(bundle_path: Path, bundle_copy: Path):
    edit_manifest(bundle_copy, created="yesterday")
    assert Bundle.open(bundle_copy).fingerprint == Bundle.open(bundle_path).fingerprint
    graph = bundle_copy / GRAPH
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(BundleError):
        Kontext.open(bundle_copy)
