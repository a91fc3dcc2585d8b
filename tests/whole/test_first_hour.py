"""The first hour of each kind of newcomer: the page says what happens, and the script sees what does not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kontext_trt.examples.first_hour import __main__, machine
from kontext_trt.examples.first_hour.__main__ import PAGE
from kontext_trt.examples.first_hour.hour import RUNNING, WHOLE, Hour, play_elsewhere, play_hour
from kontext_trt.examples.first_hour.normal import fold, fold_command, normal
from kontext_trt.examples.first_hour.page import chapter_text, differences, page, split
from kontext_trt.examples.first_hour.pictures import coloured, is_not_there, lies_there, other, same
from kontext_trt.examples.first_hour.play import Shown, StepFailed, play
from kontext_trt.examples.first_hour.steps import Chapter, Step

CHAPTERS = (*WHOLE, *RUNNING)


@pytest.mark.check
@pytest.mark.slow
def test_the_page_says_what_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Typed in fresh environments. An interpreter that is missing is said, and its chapter is not compared."""
    hour = play_hour(tmp_path / "hour")
    for version in hour.missing:
        with capsys.disabled():  # no warning: those are errors here, and a machine may have one interpreter
            print(f"there is no python{version}: its chapter was not played")
    assert differences(PAGE.read_text(), hour.chapters) == ""


def test_the_page_has_every_command_that_is_typed() -> None:
    """What `make check` plays is what the page shows."""
    there = split(PAGE.read_text())
    assert list(there) == [chapter.title for chapter in CHAPTERS]
    for chapter in CHAPTERS:
        joined = there[chapter.title].replace(" \\\n    ", " ")
        typed = [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]
        assert typed == [step.types for step in chapter.steps], f"make first-hour writes {PAGE.name} again"


def test_every_kind_of_newcomer_is_refused_something() -> None:
    for chapter in CHAPTERS:
        refused = [step for step in chapter.steps if step.code]
        assert refused or chapter is RUNNING[1], chapter.title
        assert all(step.shows for step in refused), "a refusal without words is not looked at"


def typed(folder: Path, **step: object) -> list[Shown]:
    given = {"says": "It says:", "types": "echo yes", **step}
    chapter = Chapter(title="One", intro="Words.", steps=(Step(**given),))  # pyright: ignore[reportArgumentType]
    return play(chapter, folder, {"PATH": os.environ["PATH"]}, lambda _: None)


class TestPlaying:
    def test_what_is_shown(self, tmp_path: Path) -> None:
        (shown,) = typed(tmp_path, types="cat said.txt", file=("said.txt", "it took 3.1 s\nyes\n"), shows=("yes",))
        assert shown.lines == ("it took … s", "yes")

    @pytest.mark.parametrize(
        ("step", "message"),
        [
            ({"types": "echo no; exit 3"}, r"no\n\nended with 3, and 0 is expected"),
            ({"code": 1}, r"ended with 0, and 1 is expected"),
            ({"shows": ("no",)}, r"yes\n\ndoes not say 'no'"),
            ({"checks": (lies_there("bundle"),)}, "there is no bundle"),
            ({"types": "touch x", "checks": (is_not_there("x"),)}, "x was left behind"),
        ],
    )
    def test_anything_else_fails(self, tmp_path: Path, step: dict[str, object], message: str) -> None:
        with pytest.raises(StepFailed, match=message):
            typed(tmp_path, **step)

    def test_what_follows_is_typed_all_the_same(self, tmp_path: Path) -> None:
        """Unless it was an install: nothing works then."""
        said: list[str] = []
        steps = [Step(says="", types="echo one; exit 1"), Step(says="", types="exit 2", quiet=True)]
        chapter = Chapter(title="", intro="", steps=(*steps, Step(says="", types="echo three")))
        with pytest.raises(StepFailed, match=r"(?s)echo one.*ended with 1.*exit 2.*ended with 2") as raised:
            play(chapter, tmp_path, {"PATH": os.environ["PATH"]}, said.append)
        assert len(said) == 2
        assert "three" not in str(raised.value)

    def test_what_is_not_for_the_page(self, tmp_path: Path) -> None:
        (shown,) = typed(tmp_path, types="printf 'a\\nb\\nc\\nd\\n'", only="b|d")
        assert shown.lines == ("[...]", "b", "[...]", "d")
        (shown,) = typed(tmp_path, quiet=True)
        assert shown.lines == ()


class TestPictures:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        Image.new("RGB", (32, 32), (40, 80, 210)).save(tmp_path / "blue.png")
        Image.new("RGB", (32, 32), (42, 81, 210)).save(tmp_path / "nearly.png")
        Image.new("RGB", (32, 32), (215, 40, 40)).save(tmp_path / "red.png")
        return tmp_path

    def test_right_ones(self, folder: Path) -> None:
        same("blue.png", "nearly.png")(folder)
        other("blue.png", "red.png")(folder)
        coloured("red.png", (200, 30, 30), (200, 60, 60))(folder)

    @pytest.mark.parametrize(
        ("check", "message"),
        [
            (same("blue.png", "red.png"), "blue.png has .* dB of red.png"),
            (same("green.png", "red.png"), "there is no picture green.png"),
            (other("blue.png", "nearly.png"), "blue.png is nearly.png nearly"),
            (coloured("blue.png", (215, 40, 40), (40, 80, 210)), r"the centre is \[40, 80, 210\]"),
            (coloured("blue.png", (40, 80, 210), (215, 40, 40)), "the corner is"),
        ],
    )
    def test_wrong_ones(self, folder: Path, check: object, message: str) -> None:
        with pytest.raises(AssertionError, match=message):
            check(folder)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tracing 6 components ━━━━━ 0:00:34 ETA 0:00:00", None),
        ("kontext-trt              0:00:01 ETA -:--:--", None),
        ("fingerprint 260a35f650fae88e8ea6be8b922919af4d4e", "fingerprint …"),
        ("4,097 ms on onnxruntime (cpu) (tokenize 1, text 217)", "… ms on onnxruntime (cpu) (… per stage)"),
        ("yes run on the CPU: onnxruntime 1.32.0, einops missing", "yes run on the CPU: onnxruntime …, einops missing"),
        ("no GPU: the driver shows no device (it is hidden)", "no GPU: the NVIDIA driver is not installed"),
        ("Python 3.11.7 on Linux x86_64", "Python … on Linux"),
        ("from /here/small-kontext by kontext-trt, 2026-11-29T05:44:01+00:00", "from small-kontext by kontext-trt, …"),
        ("clip for sm_120, tensorrt_rtx 1.7.1: 25.3 MiB, 5.9 s;", "clip for sm_120, tensorrt_rtx …: … MiB, … s;"),
        ("t5.fp32.safetensors  5.1 MiB  converted", "t5.fp32.safetensors  5.1 MiB  converted"),
        (" before.png)   128x128  42.7     0.9961", " before.png)   128x128  …        …"),
        (" local edit  1  100 %    33.8       37.2       ", " local edit  1  100 %    …          …"),
        ("edited.png  128x128  seed 0   ", "edited.png  128x128  seed 0"),
    ],
)  # fmt: skip
def test_what_differs_from_run_to_run_is_no_difference(line: str, said: str | None) -> None:
    assert normal(line, Path("/here")) == ([] if said is None else [said])


def test_long_lines_are_folded_as_a_terminal_does() -> None:
    (first, *more) = fold("    error: " + "one word and another " * 8)
    assert len(first) <= 86
    assert more[0].startswith("      ")


def test_long_commands_are_folded_as_they_may_be_typed() -> None:
    command = 'kontext-trt edit bundle --image shapes.png --prompt "turn the orange hexagon black at once" --out a.png'
    assert fold_command("kontext-trt doctor") == "kontext-trt doctor"
    first, second = fold_command(command).splitlines()
    assert first.endswith(" \\")
    assert second.startswith('    --prompt "turn the orange hexagon')
    assert fold_command(command).replace(" \\\n    ", " ") == command
    done = subprocess.run(["bash", "-c", fold_command(f"echo {'and ' * 40}")], capture_output=True, check=True)
    assert done.stdout.split() == [b"and"] * 40


class TestPage:
    SHOWN = Shown(step=Step(says="Say:", types="echo yes"), lines=("yes",), seconds=1.0)
    ONE = Chapter(title="One", intro="Words.", steps=())

    def test_nothing_differs_from_what_was_written(self) -> None:
        text = chapter_text(self.ONE, [self.SHOWN])
        assert text == "## One\n\nWords.\n\nSay:\n\n```console\n$ echo yes\nyes\n```\n"
        assert differences(page([text]), [text]) == ""

    def test_another_answer_is_a_difference(self) -> None:
        text = chapter_text(self.ONE, [self.SHOWN])
        found = differences(page([text]), [text.replace("\nyes\n", "\nno\n")])
        assert "-yes" in found
        assert "+no" in found

    def test_a_chapter_that_is_not_on_the_page_is_a_difference(self) -> None:
        assert "+## One" in differences(page([]), [chapter_text(self.ONE, [])])

    def test_a_chapter_that_was_not_played_is_none(self) -> None:
        text = chapter_text(self.ONE, [self.SHOWN])
        assert differences(page([text, text.replace("## One", "## Two")]), [text]) == ""

    def test_a_program_is_shown_as_it_is_written(self) -> None:
        step = Step(says="", types="python x.py", file=("x.py", "print(1)\n"), mistyped=True)
        text = chapter_text(self.ONE, [Shown(step=step, lines=("1",), seconds=0.0)])
        assert "```python\nprint(1)\n```\n\n```mistyped\n$ python x.py\n1\n```" in text


class TestInterpreters:
    def test_this_one_is_found(self) -> None:
        found = machine.find_python((sys.version_info[0], sys.version_info[1]))
        assert found is not None
        assert found.exists()

    def test_one_that_is_not_there(self) -> None:
        assert machine.find_python((3, 1)) is None

    def test_a_chapter_without_its_interpreter_is_left_out(self, tmp_path: Path) -> None:
        chapter = Chapter(title="One", intro="", steps=(), python=(3, 1))
        assert play_elsewhere(chapter, tmp_path, lambda _: None) is None
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("write", "missing", "message"),
        [
            (
                False,
                (),
                r"docs/tutorial-first-hour.md says something else than what happens; make first-hour writes it",
            ),
            (True, ("3.10",), r"written where every interpreter is: 3.10 are missing"),
        ],
    )
    def test_a_page_that_differs_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: bool, missing: tuple[str, ...], message: str
    ) -> None:
        played = Hour(chapters=("## From diffusers\n\nNo.\n",), missing=missing)
        monkeypatch.setattr(__main__, "play_hour", lambda folder: played)
        before = PAGE.read_bytes()
        with pytest.raises(StepFailed, match=message):
            __main__.run(tmp_path, write=write)
        assert PAGE.read_bytes() == before

    def test_one_that_says_another_version_or_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As pyenv's shims do, of versions that are not chosen."""
        shim = tmp_path / "python3.1"
        shim.write_text("#!/bin/sh\necho 'python3.1: command not found' >&2\nexit 127\n")
        shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert machine.find_python((3, 1)) is None

    def test_a_newcomers_shell_has_nothing_of_ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("PYTHONPATH", "VIRTUAL_ENV", "HF_TOKEN", "HF_HOME", "KONTEXT_TRT_KEY"):
            monkeypatch.setenv(name, "ours")
        made = machine.environment(tmp_path, Path(sys.executable))
        assert "ours" not in made.values()
        assert made["HOME"] == str(tmp_path / ".home")
        assert made["PATH"].split(os.pathsep)[:2] == [str(tmp_path / "venv/bin"), str(tmp_path / ".names")]
        assert (tmp_path / ".names/python3").exists()

    def test_a_checkout_is_copied_without_what_git_ignores(self, tmp_path: Path) -> None:
        machine.copy_checkout(tmp_path / "copy")
        assert (tmp_path / "copy/pyproject.toml").is_file()
        assert (tmp_path / "copy/.links/kontext_trt").is_symlink()
        assert not (tmp_path / "copy/.venv").exists()
        assert not (tmp_path / "copy/.git").exists()
