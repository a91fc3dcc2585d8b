"""Options as types: which devices they name, and what is said of those that cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from kontext_trt import Bundle, BundleError, ExecutorError, Kontext, OptionError
from kontext_trt.engine.system.gpus import Gpu
from kontext_trt.runtime.executors import open as executors
from kontext_trt.runtime.executors.options import (
    AnyExecutor,
    Device,
    ExecutorName,
    OnnxRuntimeOptions,
    TensorRtOptions,
    executor_options,
    parse_devices,
    read_devices,
)


@pytest.mark.parametrize(
    ("devices", "numbers"), [(None, ()), (1, ()), (4, (0, 1, 2, 3)), ([2], (2,)), ((0, 2), (0, 2)), ([], ())]
)
def test_devices_are_how_many_or_their_numbers(devices: Any, numbers: tuple[int, ...]):
    assert parse_devices(devices) == numbers


@pytest.mark.parametrize("devices", [0, -1, True, 1.5, "2", "0,1", ["0"], [True], [-1], {0, 1}])
def test_what_is_no_device_is_refused(devices: Any):
    with pytest.raises(OptionError, match=r"devices is how many there are, from 1, or a list of their numbers, not "):
        parse_devices(devices)


def test_a_device_takes_part_once():
    with pytest.raises(OptionError, match="devices names device 2 twice: 0, 2, 2"):
        parse_devices((0, 2, 2))


@pytest.mark.parametrize(("text", "devices"), [("4", 4), ("0,2", (0, 2)), (" 1, 3", (1, 3)), ("1", 1)])
def test_a_text_names_devices(text: str, devices: object):
    assert read_devices(text) == devices


@pytest.mark.parametrize("text", ["", "a", "3,", "-1", "1.5", "²", "0;1", "0 1"])
def test_a_text_that_names_none_is_refused(text: str):
    words = re.escape(f"--devices is how many, as 4, or their numbers, as 0,2, not {text!r}")
    with pytest.raises(OptionError, match=words):
        read_devices(text)


def test_a_single_number_is_that_device_alone():
    assert OnnxRuntimeOptions(devices=(3,)) == OnnxRuntimeOptions(device_id=3)
    assert ExecutorName.CUDA.options(devices=[3]) == OnnxRuntimeOptions(device=Device.CUDA, device_id=3)
    assert executor_options("tensorrt", [3]) == executor_options(executor_options("tensorrt"), [3])
    assert cast(TensorRtOptions, executor_options("tensorrt", [3])).device_id == 3
    assert executor_options(TensorRtOptions(device_id=2)) == executor_options(TensorRtOptions(device_id=2), 1)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_the_time_of_devices_has_limits(seconds: float):
    with pytest.raises(OptionError, match="devices_timeout_s must be above 0 and at most 86400, not "):
        OnnxRuntimeOptions(devices_timeout_s=seconds)


def test_devices_are_added_to_options_that_are_given():
    assert executor_options(OnnxRuntimeOptions(threads=2), 3) == OnnxRuntimeOptions(threads=2, devices=(0, 1, 2))
    assert executor_options(None, 2) == AnyExecutor(devices=(0, 1))


def test_plans_run_on_one_device():
    for executor in ("tensorrt", "tensorrt_rtx", TensorRtOptions()):
        with pytest.raises(OptionError, match=r"plans of tensorrt\w* run on one device: leave out the devices, or "):
            executor_options(executor, 2)


@pytest.mark.parametrize(
    ("executor", "devices", "missing"), [(None, 2, "0, 1"), ("cuda", [1, 2], "1, 2"), (None, [3], "3")]
)
def test_without_gpus_it_is_said_what_shares_requests_instead(
    bundle: Bundle, executor: Any, devices: Any, missing: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(executors, "find_gpus", lambda: ((), "the NVIDIA driver is not installed"))
    with pytest.raises(ExecutorError) as raised:
        Kontext.open(bundle, executor=executor, devices=devices)
    assert str(raised.value) == (
        f"there is no GPU {missing}: the NVIDIA driver is not installed. To try it without GPUs, processes on the CPU "
        "share requests with the executor cpu"
    )


def test_a_number_that_no_gpu_has_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    gpus = tuple(Gpu(index=number, name="x", major=9, minor=0, memory_bytes=1 << 37) for number in range(2))
    monkeypatch.setattr(executors, "find_gpus", lambda: (gpus, ""))
    with pytest.raises(ExecutorError, match="there is no GPU 2: this machine has 2, whose numbers begin with 0"):
        Kontext.open(bundle, devices=[0, 2])


def test_the_nearest_numbers_of_devices_are_named(fused_path: Path):
    with pytest.raises(OptionError, match="2 heads cannot be shared by 5 devices; 2 can, or 1"):
        Kontext.open(fused_path, executor="cpu", devices=5)


def test_a_bundle_without_fused_operators_says_how_to_get_them(bundle: Bundle):
    with pytest.raises(BundleError, match=r"has no fused operators; export the checkpoint again with --operators fuse"):
        Kontext.open(bundle, executor="cpu", devices=2)


def test_a_budget_means_nothing_to_processes_on_the_cpu(bundle: Bundle, caplog: pytest.LogCaptureFixture):
    with pytest.raises(BundleError):
        Kontext.open(bundle, executor=OnnxRuntimeOptions(device=Device.CPU, vram_bytes=1 << 30), devices=2)
    assert "a budget of GPU memory means nothing on the CPU" in caplog.text


def test_gpus_that_are_named_are_not_processes_on_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    """The installed ONNX Runtime may have no CUDA."""
    gpus = tuple(Gpu(index=number, name="x", major=9, minor=0, memory_bytes=1 << 37) for number in range(2))
    monkeypatch.setattr(executors, "find_gpus", lambda: (gpus, ""))
    for devices in (2, [1]):
        with pytest.raises(ExecutorError, match="has no CUDA support; replace it"):
            Kontext.open(bundle, devices=devices)
