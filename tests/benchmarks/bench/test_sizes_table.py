"""A row for each trained size, and one that fails is told by its reason."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from kontext_trt import Bundle, ExecutorError, Kontext, Request
from kontext_trt.benchmarks.bench import sizes_table


def test_a_row_for_each_size_and_a_reason_for_one_that_fails(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[tuple[int, int]] = []
    run = Kontext.run

    def failing(kontext: Kontext, request: Request):
        size = request.sampling.size
        assert isinstance(request.image, Image.Image)
        assert size is not None
        assert request.image.size == size
        asked.append(size)
        if size == failed:
            raise ExecutorError("no kernel")
        return run(kontext, request)

    sizes = (64, 64), (96, 192), (128, 128)
    failed = sizes[-1]
    monkeypatch.setattr(Kontext, "sizes", sizes)
    monkeypatch.setattr(Kontext, "run", failing)
    given = [str(bundle.path), "--executor", "cpu", "--steps", "2", "--repeat", "1", "--json"]
    with pytest.raises(SystemExit, match="1"):
        sizes_table.main(given)
    table = json.loads(capsys.readouterr().out)
    *rows, last = table["rows"]
    assert (table["steps"], table["repeat"]) == (2, 1)
    assert [row["size"] for row in rows] == [f"{width}x{height}" for width, height in sizes[:-1]]
    for row, (width, height) in zip(rows, sizes, strict=False):
        assert row["tokens"] == width * height // 256
        assert row["request_ms"] > 2 * row["step_ms"] > 0
        assert min(row["encode_ms"], row["decode_ms"]) > 0
    assert last["failed"] == "no kernel"
    assert {size: asked.count(size) for size in sizes} == {size: 1 if size == failed else 4 for size in sizes}
