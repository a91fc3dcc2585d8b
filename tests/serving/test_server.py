"""A server as a process: it stops gracefully, and logs in lines of JSON."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx2
from served import Process, error_of


def test_sigterm_lets_running_requests_end_and_sends_waiting_ones_away(bundle_path: Path):
    answers: dict[str, httpx2.Response] = {}

    def ask(name: str, steps: int, size: str) -> None:
        body = {"prompt": "x", "num_inference_steps": steps, "size": size}
        answers[name] = httpx2.post(f"{server.url}/v1/images/generations", json=body, timeout=120)

    def admitted(count: int) -> None:
        deadline = time.monotonic() + 60
        while f"kontext_admitted {count}.0" not in httpx2.get(f"{server.url}/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with Process(bundle_path) as server:
        running = threading.Thread(target=ask, args=("running", 40, "96x96"))
        running.start()
        admitted(1)
        waiting = threading.Thread(target=ask, args=("waiting", 1, "32x32"))
        waiting.start()
        admitted(2)
        server.terminate()
        waiting.join()
        assert answers["waiting"].status_code == 503
        assert error_of(answers["waiting"])["code"] == "stopping"
        running.join()
        assert answers["running"].status_code == 200
        assert len(answers["running"].json()["data"]) == 1
        assert server.wait() == 128 + 15
    entries = [json.loads(line) for line in server.lines if line.startswith("{")]
    statuses = [entry["status"] for entry in entries if entry.get("route") == "/v1/images/generations"]
    assert statuses == [503, 200]
    assert not any("x-prompt" in line for line in server.lines)
