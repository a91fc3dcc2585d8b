"""A picture's fingerprint names the files that it was made from.

Networks are loaded after a bundle is opened: a file that has changed by then, or is written to while it is mapped, is
refused in words."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kontext_trt import Bundle, BundleError, Kontext
from kontext_trt.engine.bundle.tensor_file import TensorFile

TRANSFORMER = "graphs/weights/transformer.diffusion_pytorch_model.safetensors"


def other_weights(path: Path) -> bytes:
    """A fine-tune's: of the same header and size."""
    data = bytearray(path.read_bytes())
    entry = TensorFile.open(path).tensors["transformer_blocks.1.attn.to_k.weight"]
    data[entry.offset : entry.offset + entry.size_bytes] = bytes(entry.size_bytes)
    return bytes(data)


def generate(kontext: Kontext) -> bytes:
    (output,) = kontext.generate("x", seed=1, steps=1, size=(128, 128)).outputs
    return output.latents.tobytes()


def replaced(path: Path) -> None:
    data = other_weights(path)
    path.unlink()
    path.write_bytes(data)


def written_into(path: Path) -> None:
    data = other_weights(path)
    with path.open("r+b") as file:
        file.write(data)


def exchanged(path: Path) -> None:
    """The whole bundle, by another of the same name: an export with --overwrite, or a deployment."""
    bundle = path.parents[2]
    shutil.copytree(bundle, bundle.with_name("new"))
    bundle.rename(bundle.with_name("old"))
    bundle.with_name("new").rename(bundle)


@pytest.mark.parametrize("change", [replaced, written_into, exchanged])
def test_what_has_changed_since_opening_is_not_loaded(bundle_copy: Path, change: Callable[[Path], None]) -> None:
    file = bundle_copy / TRANSFORMER
    with Kontext.open(bundle_copy) as kontext:
        change(file)
        with pytest.raises(
            BundleError, match=r"(is another file than when|was written to since) the bundle was opened"
        ):
            generate(kontext)


def test_half_of_an_exchanged_bundle_is_no_mixture(bundle_copy: Path) -> None:
    """What was loaded before is not run beside what was exchanged."""
    with Kontext.open(bundle_copy) as kontext:
        for component in ("clip", "t5"):
            kontext.executor.load(component)
        exchanged(bundle_copy / TRANSFORMER)
        with pytest.raises(BundleError, match="is another file than when the bundle was opened; open the bundle again"):
            generate(kontext)
    with Kontext.open(bundle_copy) as kontext:
        assert generate(kontext)


def test_a_network_that_is_loaded_goes_on_when_its_file_is_replaced(bundle_copy: Path) -> None:
    """What is mapped is held: a bundle that is exported anew does not disturb who uses the old one."""
    with Kontext.open(bundle_copy) as kontext:
        expected = generate(kontext)
        exchanged(bundle_copy / TRANSFORMER)
        assert generate(kontext) == expected


@pytest.mark.parametrize("cut", [False, True])
def test_weights_that_are_written_to_while_they_are_mapped_are_not_computed_with(bundle_copy: Path, cut: bool) -> None:
    """Of a file that is cut short the next read would end the process."""
    file = bundle_copy / TRANSFORMER
    with Kontext.open(bundle_copy) as kontext:
        expected = generate(kontext)
        time.sleep(0.01)  # kernels keep times in steps
        if cut:
            os.truncate(file, file.stat().st_size // 2)
        else:
            written_into(file)
        with pytest.raises(
            BundleError, match=r"was written to since the bundle was opened, and its weights are in use"
        ):
            assert generate(kontext) == expected


def test_one_more_name_changes_nothing(bundle_copy: Path, tmp_path: Path) -> None:
    """A second export of the same checkpoint links its files, which alters their status but not what they hold."""
    with Kontext.open(bundle_copy) as kontext:
        os.link(bundle_copy / TRANSFORMER, tmp_path / "again")
        assert generate(kontext)


def test_a_checkpoint_written_into_before_the_bundle_is_opened_is_seen(bundle_copy: Path) -> None:
    """Header and size are the same, so opening cannot tell; the first load samples every tensor."""
    written_into(bundle_copy / TRANSFORMER)
    words = r"holds other weights than were exported; a checkpoint .* with --copy"
    with Kontext.open(bundle_copy) as kontext, pytest.raises(BundleError, match=words):
        generate(kontext)
    with pytest.raises(BundleError, match="holds other weights than were exported"):
        Bundle.open(bundle_copy).open_graph("denoiser")


def test_copied_weights_are_the_bundles_own(checkpoint_copy: Path, tmp_path: Path) -> None:
    from kontext_trt.export.checkpoint import open_checkpoint
    from kontext_trt.export.export import ExportOptions, export_bundle

    files = open_checkpoint(checkpoint_copy)
    shared = export_bundle(files, tmp_path / "shared", ExportOptions())
    copied = export_bundle(files, tmp_path / "copied", ExportOptions(copy=True))
    assert {record.origin for record in shared.manifest.weights} <= {"hardlink", "reflink"}
    assert {record.origin for record in copied.manifest.weights} <= {"copy", "reflink"}
    assert copied.fingerprint == shared.fingerprint
    written_into(checkpoint_copy / "transformer/diffusion_pytorch_model.safetensors")
    assert Bundle.open(copied.path).verify().problems == ()
    if {record.origin for record in shared.manifest.weights} == {"hardlink"}:
        assert Bundle.open(shared.path).verify().problems != ()
