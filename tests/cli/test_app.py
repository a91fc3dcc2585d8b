"""The command line: what a person types, sees, and gets as an exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import LINKS, run
from once_per_run import OncePerRun
from PIL import Image
from typer.testing import CliRunner

from kontext_trt import KontextError
from kontext_trt.cli.app import COMMANDS, app


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def image_path(tmp_path: Path, picture) -> Path:
    path = tmp_path / "in.png"
    picture(300, 200).save(path)
    return path


def test_edit(bundle_path: Path, image_path: Path, tmp_path: Path):
    out = tmp_path / "out.png"
    done = run("edit", bundle_path, "-i", image_path, "-p", "make it blue", "-o", out, "--steps", 2, "-s", 5)
    assert done.stdout.strip().endswith("out.png  144x112  seed 5")
    assert "reference 300x200 -> 144x112 (resize), stretched by 17 %" in done.stderr
    assert "onnxruntime (cpu)" in done.stderr
    assert done.stderr.splitlines()[0].startswith("reference "), "and no bar"
    assert size_of(out) == (144, 112)


def test_edit_prints_json_for_programs(bundle_path: Path, image_path: Path, tmp_path: Path):
    done = run(
        "edit", bundle_path, "-i", image_path, "-p", "a", "-p", "b", "-s", 1, "--steps", 1, "--size", "64x48",
        "-o", tmp_path / "out.png", "--json",
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert [(item["prompt"], item["seed"], item["width"], item["height"]) for item in report["pictures"]] == [
        ("a", 1, 64, 48),
        ("b", 1, 64, 48),
    ]
    assert all(Path(item["path"]).is_file() for item in report["pictures"])
    assert report["milliseconds"]["total"] > 0


def test_pictures_of_several_prompts_say_which_is_which(bundle_path: Path, tmp_path: Path):
    asked = ("generate", bundle_path, "--steps", 1, "--size", "32x32", "-o", tmp_path / "out.png", "-s", 1)
    said = CliRunner().invoke(app, [*map(str, asked), "-p", "a cat", "-p", "a dog"], catch_exceptions=False)
    first, second = said.stdout.splitlines()
    assert first.endswith("out-1.png  32x32  seed 1  'a cat'")
    assert second.endswith("out-2.png  32x32  seed 1  'a dog'")


def test_generate(bundle_path: Path, tmp_path: Path):
    request = ("-p", "a cat", "-o", tmp_path / "cat.webp", "--steps", 1, "--size", "64x32")
    run("generate", bundle_path, *request)
    assert size_of(tmp_path / "cat.webp") == (64, 32)


def test_options_of_the_run(bundle_path: Path, tmp_path: Path):
    request = ("-p", "a cat", "-o", tmp_path / "cat.png", "--steps", 2, "--size", "64x32")
    options = ("--executor", "cpu", "--trust", "--debug-nan", "--vram", "8GiB")
    done = run("generate", bundle_path, *request, *options)
    assert size_of(tmp_path / "cat.png") == (64, 32)
    assert "a budget of GPU memory means nothing on the CPU" in done.stderr
    assert "--trust is about plans, and ONNX Runtime runs the graphs" in done.stderr


def test_export_edit_inspect(checkpoint_path: Path, once_per_run: OncePerRun, tmp_path: Path):
    done = run("export", checkpoint_path, tmp_path / "bundle", "--json", graphs=once_per_run)
    assert json.loads(done.stdout)["added_bytes"] < 5_000_000
    table = run("inspect", tmp_path / "bundle", "--verify").stdout
    assert "denoiser" in table
    assert "checked, and as the manifest says: every byte of 9 graphs, tokenizers and configurations" in table
    assert "not checked: the other bytes of the weights; --full reads those" in table
    assert "not checked: who made the bundle" in table
    refused = run("inspect", tmp_path / "bundle", "--full", code=1)
    assert "not checked: the other bytes of graphs/weights/clip.model.safetensors" in refused.stdout
    assert "error: " in refused.stderr
    assert "not all was checked: the export recorded no hash of every byte of" in refused.stderr
    report = json.loads(run("inspect", tmp_path / "bundle", "--json").stdout)
    assert report["manifest"]["graphs"]["denoiser"]["precision"] == "fp32"
    assert (report["problems"], report["checked"]) == ([], []), "nothing was asked for"
    sampled = json.loads(run("inspect", tmp_path / "bundle", "--verify", "--json").stdout)
    assert len(sampled["checked"]) == 3
    assert len(sampled["unchecked"]) == 3
    refused = run("export", checkpoint_path, tmp_path / "bundle", code=1)
    assert "exists; choose another name, or allow it with --overwrite" in refused.stderr


def test_export_for_onnx_runtime_is_not_quantized(checkpoint_path: Path, tmp_path: Path):
    refused = run(
        "export", checkpoint_path, tmp_path / "bundle", "--operators", "onnxruntime", "--precision", "fp8", code=1
    )
    assert "error: graphs of --operators onnxruntime are not quantized" in refused.stderr
    assert list(tmp_path.iterdir()) == []


LIGHT = """
import sys
from kontext_trt.cli.app import main
sys.argv = ["kontext-trt", "doctor"]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
found = [name for name in ("PIL", "tokenizers", "numpy", "torch", "kontext_trt.runtime") if name in sys.modules]
assert not found, found
"""


def test_doctor_imports_nothing_that_makes_pictures():
    environment = {**os.environ, "PYTHONPATH": LINKS}
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Python" in done.stdout


def test_every_command_is_what_the_table_says():
    group: Any = typer.main.get_command(app)
    assert list(group.commands) == list(COMMANDS)
    for name, command in group.commands.items():
        assert command.name == name
        assert command.help
        assert command.params or command.commands
    assert "no-such" not in group.commands


def test_help_lists_all_commands():
    said = run("--help").stdout
    assert all(f" {name} " in said for name in COMMANDS)


def commands_of(group: Any, *before: str) -> Iterator[tuple[str, ...]]:
    """Every command, groups of commands among them, as it is typed."""
    yield before
    for name, command in getattr(group, "commands", {}).items():
        yield from commands_of(command, *before, name)


def test_h_is_help_of_every_command():
    found = list(commands_of(typer.main.get_command(app)))
    assert len(found) > len(COMMANDS)
    for command in found:
        said = CliRunner().invoke(app, [*command, "-h"], catch_exceptions=False)
        assert said.exit_code == 0, command
        assert "Usage: " in said.stdout
        assert "--help" in said.stdout


SILENT = {("serve",): "it answers over HTTP"}
"""The commands that print no results."""


def test_every_command_that_prints_results_has_json():
    group: Any = typer.main.get_command(app)
    without = []
    for words in commands_of(group):
        command = group
        for word in words:
            command = command.commands[word]
        if not hasattr(command, "commands") and not any("--json" in one.opts for one in command.params):
            without.append(words)
    assert without == list(SILENT)


def test_an_executor_may_be_spelled_with_a_hyphen(bundle_path: Path, image_path: Path):
    for spelling in ("tensorrt-rtx", "tensorrt_rtx"):
        request = ("edit", bundle_path, "-i", image_path, "-p", "x", "--executor", spelling)
        said = CliRunner().invoke(app, [*map(str, request)])
        assert isinstance(said.exception, KontextError), "it was taken, and cannot run here"
    said = CliRunner().invoke(app, [*map(str, (*request[:-1], "gpu"))], env={"COLUMNS": "200"})
    assert said.exit_code == 2
    words = " ".join(said.stderr.replace("│", " ").split())
    assert "it must be one of auto, cpu, cuda, tensorrt, tensorrt_rtx, not 'gpu'" in words


def test_doctor():
    report = json.loads(run("doctor", "--json").stdout)
    parts = {part["name"]: part for part in report["parts"]}
    assert parts["export checkpoints"]["usable"]
    assert parts["export checkpoints"]["packages"]["torch"]
    text = run("doctor").stdout
    for part in report["parts"]:
        assert part["usable"] or part["command"] in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "100x100"], "error: size 100x100 is not possible: both sides must be positive multiples of 16"),
        (["--size", "big"], "error: a size is WIDTHxHEIGHT, such as 1024x1024, not 'big'"),
        (["--size", "100000x100000"], "error: size 100000x100000 is not possible: sides of up to 8192 px are"),
        (["--steps", "0"], "error: steps must be a whole number from 1 to 1000, not 0"),
        (["--steps", "100000000000"], "error: steps must be a whole number from 1 to 1000, not 100000000000"),
        (["-o", "out.xyz"], "error: out.xyz: no picture format has the suffix '.xyz'"),
        (["-o", "out.xbm"], "error: out.xbm: Pillow writes no colour picture as XBM; use .png, .jpg or .webp"),
        (["-o", "/proc/x/out.png"], "error: /proc/x/out.png cannot be written: "),
        (["--image", "missing.png"], "error: picture missing.png cannot be read: No such file or directory"),
        (["--prompt", ""], "error: a prompt must be a text that says what to do, not ''"),
        (["--vram", "lots"], "error: a size in memory is written like 512MiB or 2GiB, not 'lots'"),
        (["--executor", "cuda"], "error: the installed ONNX Runtime has no CUDA support"),
    ],
)
def test_refusals(bundle_path: Path, image_path: Path, tmp_path: Path, arguments: list[str], message: str):
    work = tmp_path / "work"
    work.mkdir()
    defaults = ["--image", str(image_path)] if "--image" not in arguments else []
    if "--prompt" not in arguments:
        defaults += ["--prompt", "x"]
    done = run("edit", bundle_path, "--steps", "1", *defaults, *arguments, code=1, cwd=work)
    assert "denoising" not in done.stderr  # refused before any work
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(work.iterdir()) == []


def test_brackets_in_names_are_kept(bundle_path: Path, tmp_path: Path):
    out = tmp_path / "[dev] out[x].png"
    done = run("generate", bundle_path, "-p", "x", "-o", out, "--steps", 1, "--size", "32x32")
    assert "[dev] out[x].png  32x32" in done.stdout


def test_unwritable_place_is_an_error_in_words(bundle_path: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    arguments = ("-p", "x", "-o", tmp_path / "file/out.png", "--steps", 1, "--size", "32x32")
    done = run("generate", bundle_path, *arguments, code=1)
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_cut_prompt_is_quoted(bundle_path: Path, tmp_path: Path):
    prompt = "a" * 510 + "bcd"
    done = run("generate", bundle_path, "-p", prompt, "-o", tmp_path / "a.png", "--steps", 1, "--size", "32x32")
    assert "warning: the prompt is longer than 512 tokens; this was cut: 'bcd'" in done.stderr
    assert ".py" not in done.stderr


def test_interrupt_exits_with_130_and_leaves_nothing(checkpoint_path: Path, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": LINKS, "NO_COLOR": "1"}
    # with the signal's usual handler: what a shell starts in the background ignores it
    code = (
        "import runpy, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('kontext_trt', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "export", str(checkpoint_path), str(tmp_path / "bundle")]
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not any(tmp_path.glob(".bundle.*")):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 130, errors
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_ended_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals):
    code = (  # under nohup it would inherit that it ignores SIGHUP
        f"import signal, sys, time\nsignal.signal({number.value}, signal.SIG_DFL)\n"
        "from pathlib import Path\nfrom kontext_trt.cli import app as cli\n"
        "from kontext_trt.engine.system.files import atomic_folder\n"
        "def work():\n    with atomic_folder(Path(sys.argv[1])) as folder:\n"
        "        (folder / 'half').touch()\n        print('writing', flush=True)\n        time.sleep(600)\n"
        "cli.app = work\ncli.main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "bundle")],
        env={**os.environ, "PYTHONPATH": LINKS},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    child.send_signal(number)
    _, errors = child.communicate(timeout=300)
    assert (child.returncode, errors) == (128 + number, b"")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_a_destructor_swallows_comes_again():
    code = (
        "import signal, sys, time\nfrom kontext_trt.cli import app as cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\ncli.app = lambda: work()\n"
        "class Late:\n    def __del__(self):\n        raise KeyboardInterrupt\n"
        "def work():\n    late = Late()\n    del late\n    time.sleep(600)\n"
        "try:\n    cli.main()\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    environment = {**os.environ, "PYTHONPATH": LINKS}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_usage_errors_exit_with_2(bundle_path: Path):
    assert "No such option" in run("edit", bundle_path, "--nonsense", code=2).stderr
    assert "Missing option" in run("edit", bundle_path, code=2).stderr


def test_missing_bundle_names_the_command(tmp_path: Path):
    done = run("inspect", tmp_path / "gone", code=1)
    assert "make it with: kontext-trt export CHECKPOINT" in done.stderr


def test_demo(once_per_run: OncePerRun, tmp_path: Path):
    done = run("demo", tmp_path / "demo", "--steps", 2, graphs=once_per_run)
    assert "edited.png  144x112  seed 0" in done.stdout
    assert size_of(tmp_path / "demo/edited.png") == (144, 112)
    assert "kontext-trt edit BUNDLE --image" in done.stderr
