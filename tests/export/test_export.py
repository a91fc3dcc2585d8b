"""Bundles appear whole or not at all, and keep what was built when they are exported again."""

import errno
import os
from pathlib import Path

import pytest

from kontext_trt import Bundle
from kontext_trt.engine.errors import ExportError
from kontext_trt.export import export as export_module
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.export import ExportOptions, export_bundle


class TestWriting:
    def test_failed_export_leaves_nothing(self, checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(*_: object) -> None:
            raise ExportError("tracing t5 failed: on purpose")

        monkeypatch.setattr(export_module, "trace", fail)
        with pytest.raises(ExportError, match="on purpose"):
            export_bundle(open_checkpoint(checkpoint_path), tmp_path / "bundle")
        assert list(tmp_path.iterdir()) == []

    def test_failed_overwrite_leaves_the_old_bundle(
        self, checkpoint_path: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def fail(*_: object) -> None:
            raise ExportError("on purpose")

        monkeypatch.setattr(export_module, "trace", fail)
        before = Bundle.open(bundle_copy).fingerprint
        with pytest.raises(ExportError, match="on purpose"):
            export_bundle(open_checkpoint(checkpoint_path), bundle_copy, ExportOptions(overwrite=True))
        assert Bundle.open(bundle_copy).fingerprint == before
        assert [path.name for path in bundle_copy.parent.iterdir()] == ["copy"]

    def test_overwriting_keeps_what_was_built(self, checkpoint_path: Path, bundle_copy: Path):
        plan = bundle_copy / "plans/clip/0123.plan"
        plan.parent.mkdir(parents=True)
        plan.write_text("hours of work")
        before = Bundle.open(bundle_copy).fingerprint
        again = export_bundle(open_checkpoint(checkpoint_path), bundle_copy, ExportOptions(overwrite=True))
        assert plan.read_text() == "hours of work"
        assert again.fingerprint == before
        assert [path.name for path in bundle_copy.parent.iterdir()] == ["copy"]

    def test_what_was_built_is_copied_where_it_cannot_be_linked(
        self, checkpoint_path: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        plan = bundle_copy / "plans/clip/0123.plan"
        plan.parent.mkdir(parents=True)
        plan.write_text("hours of work")
        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr("kontext_trt.engine.system.files._reflink", lambda *_: False)
        export_bundle(open_checkpoint(checkpoint_path), bundle_copy, ExportOptions(overwrite=True))
        assert plan.read_text() == "hours of work"

    def test_taken_name_is_refused(self, checkpoint_path: Path, tmp_path: Path):
        checkpoint = open_checkpoint(checkpoint_path)
        with pytest.raises(ExportError, match="exists; choose another name or export with --overwrite"):
            export_bundle(checkpoint, tmp_path)
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(ExportError, match="is not a bundle; it will not be overwritten"):
            export_bundle(checkpoint, tmp_path, ExportOptions(overwrite=True))

    @pytest.mark.usefixtures("traced_anew")
    def test_same_checkpoint_same_graphs(self, checkpoint_path: Path, bundle: Bundle, tmp_path: Path):
        again = export_bundle(open_checkpoint(checkpoint_path), tmp_path / "bundle")
        assert again.fingerprint == bundle.fingerprint
