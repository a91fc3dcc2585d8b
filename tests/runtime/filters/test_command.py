"""Programs as filters: what they are asked, what their exit codes say, and that they end."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from kontext_trt import CommandFilter, Content, ContentRefused, OptionError, Stage
from kontext_trt.engine.errors import Cancelled, ExecutorError
from kontext_trt.runtime.filters.screen import Screen

READS = """
import io, json, sys
from PIL import Image
line = json.loads(sys.stdin.buffer.readline())
data = sys.stdin.buffer.read()
assert len(data) == line["picture_bytes"]
picture = Image.open(io.BytesIO(data)) if data else None
with open(sys.argv[1], "w") as file:
    json.dump([line["stage"], line["prompt"], picture and [picture.format, *picture.getpixel((0, 0))]], file)
sys.exit(1 if "bad" in line["prompt"] else 0)
"""
RED = Image.new("RGB", (8, 8), "red")


def program(code: str, *arguments: str, seconds: float = 30) -> CommandFilter:
    return CommandFilter([sys.executable, "-I", "-c", code, *arguments], seconds=seconds)


def test_a_program_is_asked(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    asked = program(READS, str(seen))
    assert asked.check(Content(stage=Stage.OUTPUT, prompt="good é", picture=RED)).allowed
    assert seen.read_text() == '["output picture", "good \\u00e9", ["PNG", 255, 0, 0]]'
    verdict = asked.check(Content(stage=Stage.PROMPT, prompt="bad"))
    assert seen.read_text() == '["prompt", "bad", null]'
    assert (verdict.allowed, verdict.reason) == (False, "the program refuses")


def test_a_program_need_not_read_what_it_is_asked() -> None:
    large = Image.effect_noise((512, 512), 90).convert("RGB")
    assert program("").check(Content(stage=Stage.OUTPUT, prompt="x", picture=large)).allowed


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)"])
def test_other_ends_are_failures(code: str) -> None:
    with pytest.raises(ExecutorError, match="not 0 or 1"):
        program(code).check(Content(stage=Stage.PROMPT, prompt="x"))


def test_what_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    marks = tmp_path / "alive"
    sleeper = f"import time; time.sleep(1.5); open({str(marks)!r}, 'w').close()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"
    with pytest.raises(ExecutorError, match=r"did not answer within 0\.3 s"):
        program(code, seconds=0.3).check(Content(stage=Stage.PROMPT, prompt="x"))
    time.sleep(1.8)
    assert not marks.exists()


def test_who_cancels_does_not_wait_for_it() -> None:
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    screen, begin = Screen([program("import time; time.sleep(30)")]), time.monotonic()
    with pytest.raises(Cancelled, match="cancelled while the filter 'python"):
        screen.release([("x", RED)], cancel)
    assert time.monotonic() - begin < 10
    assert [one.refused for one in screen.counts] == [0, 0, 0]


def test_a_program_that_fails_refuses() -> None:
    with pytest.raises(ContentRefused, match="it failed, which refuses"):
        Screen([program("import sys; sys.exit(2)")]).release([("x", RED)])


@pytest.mark.parametrize(
    ("arguments", "seconds", "message"),
    [
        ([], 1, "a command is a list of texts"),
        ("true", 1, "a command is a list of texts"),
        (["no-such-program"], 1, "there is no program 'no-such-program'"),
        (["true"], 0, "seconds must be above 0, not 0"),
        (["true"], float("nan"), "seconds must be above 0, not nan"),
    ],
)
def test_commands_that_are_none_are_refused(arguments, seconds: float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CommandFilter(arguments, seconds=seconds)
