"""Calibration: what is seen, kept, continued, compared; and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from quantizing_fixtures import MakePicture
from quick_calibration import QUICK

from kontext_trt import Bundle, Kontext, NotFiniteError, QuantizationError
from kontext_trt.export.quantize import calibrate as calibrate_module
from kontext_trt.export.quantize.calibrate import calibrate_bundle, check_calibration
from kontext_trt.export.quantize.calibration import Calibration, Done, Observation, differences
from kontext_trt.export.quantize.observer import Magnitudes
from kontext_trt.export.quantize.samples import read_samples


def observe(*tensors: torch.Tensor) -> Observation:
    magnitudes = Magnitudes()
    for tensor in tensors:
        magnitudes.collect(tensor)
    observation = magnitudes.take()
    assert observation is not None
    return observation


@pytest.fixture
def draws() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(50, 40, generator=generator) * scale for scale in (0.01, 1, 30)]


class TestObservations:
    def test_percentiles_are_right_to_a_bin(self, draws: list[torch.Tensor]) -> None:
        everything = torch.cat(draws).abs().flatten().numpy()
        seen = observe(*draws)
        assert (seen.amax, seen.tensors, seen.values) == (everything.max(), 3, everything.size)
        for percent in (50.0, 90.0, 99.9):
            exact = np.quantile(everything, percent / 100, method="inverted_cdf")
            assert exact <= seen.percentile(percent) <= exact * (1 + 2**-4)

    def test_runs_add_up(self, draws: list[torch.Tensor]) -> None:
        assert observe(draws[0]).merged(observe(*draws[1:])) == observe(*draws)

    def test_zeros_and_large_tensors(self) -> None:
        assert observe(torch.zeros(3, 3)).amax == 0
        assert observe(torch.zeros(3, 3)).percentile(99) == 0
        large = torch.zeros(1 << 20)
        large[12345] = 7
        seen = observe(large)
        assert seen.amax == 7, "the maximum is of all values"
        assert seen.values == 1 << 18

    def test_bfloat16_is_seen_as_it_is(self) -> None:
        assert observe(torch.tensor([1.0, -3.0], dtype=torch.bfloat16)).amax == 3


class TestCalibrating:
    def test_every_product_of_the_blocks_is_seen(self, calibration: Calibration) -> None:
        """2 double blocks of 14 linear layers, 2 single ones of 6 less the shared ones, attention's operands.

        Those are three, and queries and keys once more, as fused operators round them.
        """
        doubles = [name for name in calibration.observations if name.startswith("transformer_blocks.0.")]
        singles = [name for name in calibration.observations if name.startswith("single_transformer_blocks.0.")]
        assert len(doubles) == 12 + 5
        assert len(singles) == 5 + 5
        assert len(calibration.observations) == 2 * (17 + 10)
        assert {one.tensors for one in calibration.observations.values()} == {4}, "2 samples of 2 steps"
        assert [bool(done.picture) for done in calibration.samples] == [True, False], "edit and text to image"
        assert calibration.complete
        queries = calibration.observations["transformer_blocks.0.attn.to_q"]
        assert queries == calibration.observations["transformer_blocks.0.attn.to_k"], "they read the same"

    def test_it_is_small_and_comes_back(self, calibration: Calibration, tmp_path: Path) -> None:
        calibration.save(tmp_path / "c.json")
        assert (tmp_path / "c.json").stat().st_size < 4000 * len(calibration.observations)
        assert Calibration.open(tmp_path / "c.json") == calibration

    def test_an_interrupted_run_is_continued(
        self,
        bundle: Bundle,
        samples: Path,
        calibration: Calibration,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        run, served = Kontext.run, []

        def interrupted(*arguments: object, **named: object) -> object:
            if served:
                raise KeyboardInterrupt
            served.append(arguments)
            return run(*arguments, **named)  # pyright: ignore[reportArgumentType]

        artefact = tmp_path / "c.json"
        monkeypatch.setattr(Kontext, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            calibrate_bundle(bundle, samples, artefact, QUICK)
        half = Calibration.open(artefact)
        assert (len(half.samples), half.complete) == (1, False)
        check_calibration(half, bundle)
        assert "interrupted after 1 samples" in caplog.text
        monkeypatch.setattr(Kontext, "run", run)
        whole = calibrate_bundle(bundle, samples, artefact, QUICK)
        assert "1 of 2 samples were run before" in caplog.text
        assert whole == calibration

    def test_a_layer_with_nan_is_named(
        self, bundle: Bundle, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load = calibrate_module.TorchExecutor.module

        def broken(self: calibrate_module.TorchExecutor, component: str) -> torch.nn.Module:
            module = load(self, component)
            if component == "denoiser":
                module.get_parameter("single_transformer_blocks.0.attn.to_v.bias").data[3] = float("nan")
            return module

        monkeypatch.setattr(calibrate_module.TorchExecutor, "module", broken)
        with pytest.raises(
            NotFiniteError, match=r"single_transformer_blocks\.0\.attn\.attend\.v: \d+ of .* NaN or inf"
        ):
            calibrate_bundle(bundle, samples, tmp_path / "c.json", QUICK)

    def test_another_models_file_is_refused(
        self, bundle: Bundle, samples: Path, calibration: Calibration, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = replace(calibration, model_sha256="0")
        other.save(tmp_path / "c.json")
        with pytest.raises(QuantizationError, match="was calibrated with another model; remove it, or name another"):
            calibrate_bundle(bundle, samples, tmp_path / "c.json", QUICK)
        calibration.save(tmp_path / "c.json")
        with pytest.raises(QuantizationError, match="was calibrated with 2 steps, not 3"):
            calibrate_bundle(bundle, samples, tmp_path / "c.json", replace(QUICK, steps=3))
        with caplog.at_level(logging.WARNING):
            check_calibration(other, bundle)
        assert "made with other weights" in caplog.text

    def test_a_quantized_bundle_is_not_calibrated(
        self, tiny_quantized: Callable[[str], Bundle], samples: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(QuantizationError, match="is quantized already; calibrate the bundle that it was made from"):
            calibrate_bundle(tiny_quantized("fp8"), samples, tmp_path / "c.json", QUICK)


def test_differences_are_listed_from_the_largest() -> None:
    small, large = observe(torch.ones(4)), observe(torch.full((4,), 3.0))
    before = Calibration(model_sha256="", steps=1, observations={"a": small, "b": small, "c": small, "d": small})
    after = before.with_sample(Done(key="", picture="", instruction=""), {"b": large})
    after = replace(after, observations={name: one for name, one in after.observations.items() if name != "d"})
    assert [(change.name, change.ratio) for change in differences(before, after)] == [("d", float("inf")), ("b", 3)]
    assert before.sha256 != after.sha256


class TestSamples:
    def test_text_goes_with_pictures_by_name(self, samples: Path) -> None:
        found, skipped = read_samples(samples)
        assert [(one.picture.name if one.picture else None, one.instruction) for one in found] == [
            ("house.png", "make the house blue"),
            (None, "a red fox"),
        ]
        assert skipped == []
        assert len({one.key(0, 2) for one in found} | {found[0].key(1, 2), found[0].key(0, 3)}) == 4

    def test_unreadable_pictures_are_skipped_and_counted(
        self, tmp_path: Path, picture: MakePicture, caplog: pytest.LogCaptureFixture
    ) -> None:
        picture(20, 20).save(tmp_path / "good.png")
        (tmp_path / "bad.png").write_bytes(b"nonsense")
        rows = "picture,instruction\ngood.png,a\nbad.png,b\nmissing.png,c\n,d\n"
        (tmp_path / "samples.csv").write_text(rows)
        found, skipped = read_samples(tmp_path)
        assert [one.instruction for one in found] == ["a", "d"]
        assert [one.picture for one in skipped] == ["bad.png", "missing.png"]
        assert "not a picture" in skipped[0].reason
        assert caplog.text.count("skipped:") == 2

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({}, "should have one .csv or .txt file, it has neither; it needs pictures and one .csv"),
            ({"a.csv": b"", "b.txt": b""}, "it has a.csv, b.txt"),
            ({"a.txt": b"\n"}, "is empty: no instruction in it"),
            ({"a.csv": b"name,text\nx,y\n"}, r"has the columns \['name', 'text'\], it needs picture and instruction"),
            ({"a.txt": b"", "p.png": b""}, "has 0 instructions for 1 pictures"),
            ({"a.txt": b"x\n", "p.png": b""}, r"none of the 1 pictures in .* can be read: .*p\.png is empty"),
        ],
    )
    def test_a_folder_without_samples_says_what_it_needs(
        self, tmp_path: Path, files: dict[str, bytes], message: str
    ) -> None:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        with pytest.raises(QuantizationError, match=message):
            read_samples(tmp_path)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(QuantizationError, match="gone does not exist"):
            read_samples(tmp_path / "gone")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not a calibration"),
        (b"\xff\xfe", "is not a calibration"),
        (b'{"steps": 3}', "is not a calibration .*missing required field"),
        (json.dumps({"model_sha256": "", "steps": 1, "schema": 9}).encode(), "has schema 9, this version reads 2"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(QuantizationError, match=message):
        Calibration.open(tmp_path / "c.json")
    with pytest.raises(QuantizationError, match="cannot be read: No such file"):
        Calibration.open(tmp_path / "gone.json")


class TestFolders:
    """What lies beside pictures and instructions must not shift one against the other."""

    def _pairs(self, folder: Path) -> list[tuple[str, str]]:
        samples, skipped = read_samples(folder)
        assert skipped == []
        return [(one.picture.name if one.picture else "", one.instruction) for one in samples]

    def test_hidden_files_are_no_samples(self, tmp_path: Path, picture) -> None:
        """macOS leaves a hidden file beside each on other file systems."""
        for name in ("a.png", "b.png"):
            picture(32, 32).save(tmp_path / name)
            (tmp_path / f"._{name}").write_bytes(b"Mac OS X")
        (tmp_path / "words.txt").write_text("first\nsecond\n")
        (tmp_path / "._words.txt").write_bytes(b"Mac OS X")
        assert self._pairs(tmp_path) == [("a.png", "first"), ("b.png", "second")]

    @pytest.mark.parametrize("inside", ["\u2028", "\u0085", "\v", "\f", "\x1c"])
    def test_only_line_breaks_end_a_line(self, tmp_path: Path, picture, inside: str) -> None:
        picture(32, 32).save(tmp_path / "a.png")
        picture(32, 32).save(tmp_path / "b.png")
        (tmp_path / "words.txt").write_bytes(f"make it{inside} blue\r\n\nadd a hat\r".encode())
        assert self._pairs(tmp_path) == [("a.png", f"make it{inside} blue"), ("b.png", "add a hat")]

    @pytest.mark.parametrize("name", ["words.txt", "words.csv"])
    def test_another_encoding_is_said_with_its_line(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes("picture,instruction\n,grün\n".encode("latin-1"))
        with pytest.raises(QuantizationError, match=rf"{name}, line 2, is not UTF-8 .*; save it as UTF-8"):
            read_samples(tmp_path)

    def test_what_is_no_csv_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "words.csv").write_text("picture,instruction\n," + "x" * 200_000)
        with pytest.raises(QuantizationError, match=r"words\.csv, line \d+, is no CSV: field larger than field limit"):
            read_samples(tmp_path)
