"""A server whose device is lost: what is asked for its health, clients and the log are told."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from processes import has_ended, wait_until
from served import Process, error_of, served

from kontext_trt import ExecutorError, Kontext
from kontext_trt.runtime.device.cuda import cuda_error
from kontext_trt.runtime.executors import ranks
from kontext_trt.runtime.executors.group_executor import GroupExecutor
from kontext_trt.serving.options import Limits, ServingOptions

QUICK = {"prompt": "x", "size": "32x32", "num_inference_steps": 1, "seed": 1}
LONG = {**QUICK, "num_inference_steps": 100, "size": "160x160"}
PLACES = ("/healthz", "/readyz")


@pytest.fixture
def shared(fused_path: Path) -> Iterator[Kontext]:
    with Kontext.open(fused_path, executor="cpu", devices=2) as kontext:
        yield kontext


def pids_of(kontext: Kontext) -> list[int]:
    assert isinstance(kontext.executor, GroupExecutor)
    return [child.pid for child in kontext.executor._ranks._children]


def kill_one(kontext: Kontext) -> None:
    os.kill(pids_of(kontext)[1], signal.SIGKILL)


def ask(url: str, body: dict[str, Any] = QUICK) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/images/generations", json=body, timeout=120)


def check_lost(url: str) -> None:
    for place in PLACES:
        answer = httpx2.get(f"{url}{place}")
        assert answer.status_code == 503
        assert error_of(answer)["code"] == "device_lost"
    for route, body in (("/v1/images/generations", QUICK), ("/v1/flux-kontext-pro", {"prompt": "x"})):
        answer = httpx2.post(f"{url}{route}", json=body)
        assert answer.status_code == 503
        assert error_of(answer) == {
            "message": "this server has lost what it computes with, and must be started again; its log says why",
            "type": "server_error",
            "param": None,
            "code": "device_lost",
        }


def test_a_process_that_is_killed_between_requests(shared: Kontext, caplog: pytest.LogCaptureFixture):
    with served(shared) as url:
        assert ask(url).status_code == 200
        assert [httpx2.get(f"{url}{place}").status_code for place in PLACES] == [200, 200]
        assert shared.lost == ""
        kill_one(shared)
        deadline = time.monotonic() + 30
        while httpx2.get(f"{url}/healthz").status_code == 200:
            assert time.monotonic() < deadline
        check_lost(url)
        wait_until(lambda: all(map(has_ended, pids_of(shared))), "the other process, which holds memory, ends", 10)
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in said] == [
        "nothing can be made until this server is started again: the process of cpu:1 was ended by SIGKILL"
    ]
    for _ in range(2):
        with pytest.raises(ExecutorError, match="loaded any more: the process of cpu:1 was ended by SIGKILL; open the"):
            shared.load()


def test_a_process_that_is_killed_in_a_request(shared: Kontext):
    with served(shared) as url:
        assert ask(url).status_code == 200
        made = shared.executor.perform

        def perform(*arguments: Any) -> Any:
            kill_one(shared)
            return made(*arguments)

        shared.executor.perform = perform  # type: ignore[method-assign]
        answer = ask(url, LONG)
        assert answer.status_code == 500
        assert error_of(answer)["code"] == "internal_error"
        assert shared.lost == "the process of cpu:1 was ended by SIGKILL"
        check_lost(url)
    shared.close()
    assert shared.lost == ""


def test_those_that_wait_when_a_process_is_killed(shared: Kontext):
    """Only what ran was made in vain."""
    with served(shared) as url, ThreadPoolExecutor() as asking:
        made = shared.executor.perform

        def perform(*arguments: Any) -> Any:
            wait_until(lambda: "kontext_waiting 3.0" in httpx2.get(f"{url}/metrics").text, "three wait")
            kill_one(shared)
            return made(*arguments)

        shared.executor.perform = perform  # type: ignore[method-assign]
        running = asking.submit(ask, url, LONG)
        wait_until(lambda: "kontext_running 1.0" in httpx2.get(f"{url}/metrics").text, "one runs")
        waiting = [asking.submit(ask, url, body) for body in (QUICK, {**QUICK, "stream": True})]
        task = httpx2.post(f"{url}/v1/flux-kontext-pro", json={"prompt": "x"}).json()["polling_url"]
        assert running.result().status_code == 500
        for one in waiting:
            assert one.result().status_code == 503
            assert error_of(one.result())["code"] == "device_lost"
        told = wait_until(lambda: httpx2.get(task).json()["details"], "the task ends")
        assert told["code"] == "device_lost"


def test_a_process_that_does_not_answer_by_the_deadline(shared: Kontext, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks, "GRACE_S", 6.0)
    with served(shared, ServingOptions(limits=Limits(seconds=3))) as url:
        shared.load()
        pids, made = pids_of(shared), shared.executor.perform

        def perform(*arguments: Any) -> Any:
            os.kill(pids[1], signal.SIGSTOP)
            return made(*arguments)

        shared.executor.perform = perform  # type: ignore[method-assign]
        answer = ask(url, LONG)
        assert answer.status_code == 504
        assert error_of(answer)["code"] == "deadline_exceeded"
        assert [httpx2.get(f"{url}{place}").status_code for place in PLACES] == [200, 200], "it may answer yet"
        wait_until(lambda: httpx2.get(f"{url}/healthz").status_code == 503, "it is given up", 30)
        check_lost(url)
        assert all(map(has_ended, pids))
    assert re.fullmatch(
        r"cpu:1 did not answer for [\d.]+ s after the request was cancelled: stopped by .*", shared.lost
    )


def test_a_server_that_is_told_to_stop_while_a_process_does_not_answer(fused_path: Path):
    options = ("--devices", "2", "--executor", "cpu", "--deadline", "4")
    with Process(fused_path, *options) as server, ThreadPoolExecutor() as asking:
        pids = [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]
        os.kill(pids[0], signal.SIGSTOP)
        running = asking.submit(ask, server.url)
        wait_until(lambda: "kontext_running 1.0" in httpx2.get(f"{server.url}/metrics").text, "one runs")
        server.terminate()
        assert error_of(running.result())["code"] == "deadline_exceeded"
        assert server.wait(30) == 128 + 15
    assert len(pids) == 2
    assert all(map(has_ended, pids))


def test_a_gpu_that_is_lost(simulate: Any):
    simulation = simulate()
    with served(simulation.kontext) as url:
        assert httpx2.get(f"{url}/healthz").status_code == 200
        simulation.cuda.lost = cuda_error("kernel", "cudaErrorIllegalAddress", "an illegal access")
        assert simulation.kontext.lost.startswith("kernel failed: an illegal access (cudaErrorIllegalAddress)")
        check_lost(url)
        simulation.cuda.lost = None


def test_a_runner_that_cannot_lose_its_device(kontext: Kontext):
    class Plain:
        bundle = kontext.bundle

    for runner in (kontext, Plain()):
        with served(runner) as url:
            assert [httpx2.get(f"{url}{place}").status_code for place in PLACES] == [200, 200]
