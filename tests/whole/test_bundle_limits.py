"""Small files that would take much memory or time are refused at once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import onnx
import pytest
from relisted import relist, write_anew

from kontext_trt import Bundle, BundleError
from kontext_trt.engine.bundle.bundle import MANIFEST
from kontext_trt.engine.bundle.onnx_schema import MAX_MESSAGES, too_many_messages


@pytest.fixture
def quickly() -> object:
    """What a refusal takes of the processor; opening a sound bundle takes a tenth of a second."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 20


def nested(field: bytes, data: bytes) -> bytes:
    size, length = len(data), b""
    while True:
        length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return field + length + data


def test_messages_without_end_are_counted_before_any_is_made(bundle_copy: Path, quickly: object) -> None:
    nodes = nested(b"\x3a", b"\x0a\x00" * (MAX_MESSAGES + 1))
    assert too_many_messages(nodes)
    assert not too_many_messages(nested(b"\x3a", b"\x0a\x00" * 1000))
    attributes = nested(b"\x3a", nested(b"\x0a", b"\x2a\x00" * (MAX_MESSAGES + 1)))
    assert too_many_messages(attributes), "at every depth"
    relist(bundle_copy, "graphs/clip.onnx", nodes)
    with pytest.raises(BundleError, match="has more than 200,000 nodes and tensors"):
        Bundle.open(bundle_copy).open_graph("clip")


@pytest.mark.parametrize("data", [b"\x3a", b"\x3a" + b"\xff" * 11, b"\xff" * 50, b"\x3a\x05\x0a"])
def test_malformed_bytes_are_left_to_the_parser(data: bytes) -> None:
    assert not too_many_messages(data)


def test_a_real_graph_is_far_from_the_limit(bundle: Bundle) -> None:
    for component in bundle.manifest.graphs:
        assert not too_many_messages(bundle.open_graph(component).data)


def test_a_shape_without_end_is_refused(bundle_copy: Path, quickly: object) -> None:
    model = onnx.load(bundle_copy / "graphs/clip.onnx", load_external_data=False)
    tensor = next(one for one in model.graph.initializer if one.external_data)
    tensor.dims.extend([1 << 62] * 60_000)
    relist(bundle_copy, "graphs/clip.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match="has the type 1 and the shape") as refusal:
        Bundle.open(bundle_copy).open_graph("clip")
    assert len(str(refusal.value)) < 1000


def changed(bundle: Path, change) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    write_anew(bundle / MANIFEST, json.dumps(manifest).encode())


def test_a_file_is_not_given_to_a_graph_a_thousand_times(bundle_copy: Path, quickly: object) -> None:
    changed(bundle_copy, lambda manifest: manifest["graphs"]["t5"].update(weights=["graphs/weights/x"] * 100_000))
    with pytest.raises(BundleError, match="length <= 200"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("path", ["graphs/weights/model.bin", "graphs/*/x.safetensors"])
def test_weights_have_names_of_weights(bundle_copy: Path, path: str) -> None:
    changed(bundle_copy, lambda manifest: manifest["weights"][0].update(path=path))
    with pytest.raises(BundleError, match="is no name of a weights file"):
        Bundle.open(bundle_copy)


def test_a_name_longer_than_file_systems_have_is_refused(bundle_copy: Path) -> None:
    changed(bundle_copy, lambda manifest: manifest["files"][0].update(path="x" * 300))
    with pytest.raises(BundleError, match="is no place inside"):
        Bundle.open(bundle_copy)


def test_headers_of_many_files_are_not_all_kept(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_trt.engine.bundle.bundle.MAX_TENSORS", 50)
    assert Bundle.open(bundle_copy).verify().problems == ("the weights files have more than 50 tensors",)
