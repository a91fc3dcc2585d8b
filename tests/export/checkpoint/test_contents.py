"""Files that are no safetensors, known by their first bytes."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint.contents import merged, open_contents


def pickled(*, new: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.safetensors", "weights")
    return buffer.getvalue()


CASES = {
    "torch.save": (lambda: pickled(new=True), r"is a PyTorch pickle .*: download the .safetensors file"),
    "torch.save of before": (lambda: pickled(new=False), "is a pickle .*, which can run code and is not read"),
    "pickle": (lambda: pickle.dumps({"a": 1}), "is a pickle"),
    "Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    "HTML": (lambda: b"\n<!DOCTYPE html><html>", "is an HTML page.* download the file itself again, logged in"),
    "XML": (lambda: b"<?xml version='1.0'?><Error/>", "is an XML document"),
    "JSON": (lambda: b'{\n  "error": "gated"}', "is a JSON document, not weights"),
    "ZIP": (zipped, "is a ZIP archive; unpack it"),
    "gzip": (lambda: gzip.compress(b"weights"), "is a compressed archive; unpack it"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_by_name_with_what_to_do(tmp_path: Path, name: str):
    make, message = CASES[name]
    (tmp_path / "model.safetensors").write_bytes(make())
    with pytest.raises(CheckpointError, match=rf"model\.safetensors {message}"):
        open_contents(tmp_path / "model.safetensors")


def test_a_file_that_is_gone(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"cannot read .*gone: No such file"):
        open_contents(tmp_path / "gone")


def test_a_tensor_in_two_shards(tmp_path: Path):
    for name in ("one", "two"):
        save_file({"a": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor a is in one\.safetensors and in two\.safetensors; take away"):
        merged("x", [open_contents(tmp_path / f"{name}.safetensors") for name in ("one", "two")])
