"""Options that every command that makes pictures has: who computes, on which devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kontext_trt import KontextError, OptionError
from kontext_trt.cli.app import app
from kontext_trt.cli.making import RunOptions
from kontext_trt.runtime.executors.options import AnyExecutor, Device, ExecutorName, OnnxRuntimeOptions


def test_every_command_that_opens_a_bundle_names_devices():
    commands: Any = typer.main.get_command(app)
    having = {
        name for name, command in commands.commands.items() if any("--devices" in one.opts for one in command.params)
    }
    assert having == {"edit", "generate", "session", "schedule", "serve", "bench", "evaluate"}


def test_options_become_the_runtimes(caplog: pytest.LogCaptureFixture):
    assert RunOptions(devices="2").executor_options(graphs=True) == AnyExecutor(devices=(0, 1))
    named = RunOptions(executor=ExecutorName.CUDA, devices="1,3", vram="1GiB").executor_options(graphs=False)
    assert named == OnnxRuntimeOptions(device=Device.CUDA, devices=(1, 3), vram_bytes=1 << 30, graphs=False)
    assert RunOptions(executor=ExecutorName.CPU, devices="1").executor_options(graphs=True).devices == ()
    with pytest.raises(OptionError, match="--devices is how many"):
        RunOptions(devices="two").executor_options(graphs=True)
    assert RunOptions(trust=True).executor_options(graphs=True) == AnyExecutor(trust=True)
    assert caplog.text == ""
    for trusted in (RunOptions(trust=True, devices="2"), RunOptions(trust=True, executor=ExecutorName.CPU)):
        caplog.clear()
        trusted.executor_options(graphs=True)
        assert "--trust is about plans, and ONNX Runtime runs the graphs" in caplog.text


def test_devices_share_what_a_command_makes(fused_path: Path, tmp_path: Path, picture: Callable):
    source, made = tmp_path / "in.png", tmp_path / "out.png"
    picture(144, 112).save(source)
    words = ["edit", fused_path, "--image", source, "--prompt", "x", "--out", made, "--steps", 2, "--seed", 0]
    done = CliRunner().invoke(app, [*map(str, words), "--executor", "cpu", "--devices", "2"])
    assert done.exit_code == 0, done.exception
    assert "ms on onnxruntime (cpu, cpu)" in done.output


def test_torch_emulates_on_one_device(tmp_path: Path):
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--emulate", "--devices", "2"])
    assert isinstance(done.exception, KontextError)
    assert str(done.exception) == "--emulate computes with torch, on one device; leave out --devices"
