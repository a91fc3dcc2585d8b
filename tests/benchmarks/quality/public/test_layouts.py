"""Benchmarks' lines: what is read, and that whatever is wrong with one is said with line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench_folders import CATEGORIES, kontext_bench, line, write_lines, write_pictures

from kontext_trt import BenchmarkError
from kontext_trt.benchmarks.quality.public.layouts import read_bench


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, and no lines."""
    write_pictures(tmp_path / "bench", 3)
    return tmp_path / "bench"


def test_kontext_bench(tmp_path: Path):
    bench = read_bench(kontext_bench(tmp_path / "bench", 7))
    assert bench.layout.name == "KontextBench"
    assert bench.categories == CATEGORIES
    second = bench.items[1]
    assert (second.key, second.category, second.instruction) == ("0001", "Style Reference", "make it number 1")
    assert second.picture == tmp_path / "bench/images/0001.png"
    assert (second.file, second.language) == ("Style-Reference/0001.png", "")
    assert bench.items[2].file == "Instruction-Editing-Global/0002.png"


def test_gedit_bench(folder: Path):
    one = {
        "key": "9f0c",
        "task_type": "subject-add",
        "instruction": "add a cat",
        "instruction_language": "en",
        "input_image": "images/0000.png",
        "Intersection_exist": True,
    }
    other = {**one, "instruction": "\u52a0\u4e00\u53ea\u732b", "instruction_language": "cn"}
    bench = read_bench(write_lines(folder, [one, other], "gedit.jsonl"))
    assert bench.layout.name == "GEdit-Bench"
    assert [item.language for item in bench.items] == ["en", "cn"]
    assert bench.items[0].file == "subject-add/9f0c.png"


def test_gedit_bench_v2(folder: Path):
    lines = [{"key": 12, "task": "cref", "instruction": "put him on a horse", "source_image": "images/0001.png"}]
    bench = read_bench(write_lines(folder, lines) / "metadata.jsonl")
    assert bench.layout.name == "GEditBench v2"
    assert (bench.items[0].key, bench.items[0].category) == ("12", "cref")


def test_metadata_is_read_where_there_are_other_files(folder: Path):
    write_lines(folder, [line(0)])
    write_lines(folder, ["{}"], "other.jsonl")
    assert len(read_bench(folder).items) == 1


def test_empty_lines_and_windows_line_ends_are_no_items(folder: Path):
    write_lines(folder, ["", line(0), "", line(1)])
    file = folder / "metadata.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().lstrip().replace(b"\n", b"\r\n"))
    assert [item.key for item in read_bench(folder).items] == ["0000", "0001"]


BROKEN: dict[str, tuple[list[Any], str]] = {
    "no JSON": ([line(0), '{"key": '], "line 2: this is no JSON"),
    "no object": ([line(0), "[1]"], "line 2: a line is a JSON object, not list"),
    "deep": (["[" * 100_000], "line 1: this is no JSON"),
    "no layout": ([{"key": "a", "text": "b"}], "the first line has the fields key, text, which is no known layout"),
    "no fields": (["{}"], "the first line has the fields none, which is no known layout"),
    "no key": ([line(0), {k: v for k, v in line(1).items() if k != "key"}], "line 2, key: it is missing; the line has"),
    "another layout": ([line(0), {"key": "1", "instruction": "x", "task": "y"}], "line 2, category: it is missing"),
    "empty key": ([line(0, key=" ")], "line 1, key: it must be a text that is not empty, not ' '"),
    "key of a fraction": ([line(0, key=1.5)], "line 1, key: it must be a text that is not empty, not 1.5"),
    "key of a truth": ([line(0, key=True)], "line 1, key: it must be a text that is not empty, not True"),
    "long key": ([line(0, key="k" * 600)], "line 1, key: it has 600 characters, more than 512"),
    "same key": ([line(0), line(1), line(2, key="0001")], "line 3, key: '0001' is line 2's, too; keys are unique"),
    "key and number": ([line(0, key="1"), line(1, key=1)], "line 2, key: '1' is line 1's, too"),
    "empty instruction": (
        [line(0, instruction="")],
        "line 1, instruction: it must be a text that .*, not ''",
    ),
    "instruction of a list": ([line(0, instruction=["a"])], "line 1, instruction: it must be a text .* not list"),
    "no category": ([line(0, category=None)], "line 1, category: it must be a text that is not empty, not None"),
    "picture in place": ([line(0, file_name={"bytes": ""})], "line 1, file_name: it must be a text .* not dict"),
    "no picture": ([line(0), line(1, file_name="images/9.png")], "line 2, file_name: .* has no file 'images/9.png'"),
    "a folder": ([line(0, file_name="images")], "line 1, file_name: .* has no file 'images'"),
    "above": ([line(0, file_name="../x.png")], "line 1, file_name: '../x.png' leads out of the folder"),
    "above below": ([line(0, file_name="images/../../x")], "line 1, file_name: .* leads out of the folder"),
    "absolute": ([line(0, file_name="/etc/passwd")], "line 1, file_name: '/etc/passwd' leads out of the folder"),
    "zero": ([line(0, file_name="a\0b")], "line 1, file_name: .* leads out of the folder"),
}


@pytest.mark.parametrize(("lines", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_said(folder: Path, lines: list[Any], words: str):
    with pytest.raises(BenchmarkError, match=words):
        read_bench(write_lines(folder, lines))


def test_links_do_not_lead_out(folder: Path, tmp_path: Path):
    (tmp_path / "secret.png").write_bytes((folder / "images/0000.png").read_bytes())
    (folder / "images/link.png").symlink_to(tmp_path / "secret.png")
    (folder / "images/inside.png").symlink_to("0001.png")
    assert read_bench(write_lines(folder, [line(0, file_name="images/inside.png")])).items
    with pytest.raises(BenchmarkError, match=r"line 1, file_name: .* is a link that leads out of the folder"):
        read_bench(write_lines(folder, [line(0, file_name="images/link.png")]))


def test_a_folder_without_lines(folder: Path, tmp_path: Path):
    with pytest.raises(BenchmarkError, match="nothing is no folder of a benchmark"):
        read_bench(tmp_path / "nothing")
    with pytest.raises(BenchmarkError, match=r"has no metadata\.jsonl, and of other files .* not one but none"):
        read_bench(folder)
    for name in ("a.jsonl", "b.jsonl"):
        write_lines(folder, [line(0)], name)
    with pytest.raises(BenchmarkError, match=r"not one but a\.jsonl, b\.jsonl; name the file itself"):
        read_bench(folder)
    with pytest.raises(BenchmarkError, match=r"metadata\.jsonl has no line"):
        read_bench(write_lines(folder, []))
