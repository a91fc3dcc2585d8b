"""A replica whose requests are shared by processes on the CPU: Ray starts another when one of them is gone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx2
import pytest
from replicas import Cluster, descendants, proc, until

pytestmark = pytest.mark.check

QUICK = {"prompt": "x", "num_inference_steps": 1, "size": "32x32", "seed": 1}


def status(cluster: Cluster) -> int:
    return httpx2.post(f"{cluster.url}/v1/images/generations", json=QUICK, timeout=300).status_code


def test_a_replica_that_has_lost_a_device_is_replaced(fused_path: Path, tmp_path: Path):
    more = tmp_path / "options.json"
    more.write_text(json.dumps({"health_check_period_s": 1}))
    shared = ("--executor", "cpu", "--devices", "2", "--replicas", "1", "--ray-options", str(more))
    cluster = Cluster(fused_path, tmp_path, *shared)
    try:
        assert status(cluster) == 200
        (replica,) = cluster.replicas()
        ranks = [pid for pid in descendants(replica) if b"rank_process" in proc(pid, "cmdline").read_bytes()]
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        until(lambda: replica not in cluster.replicas() and len(cluster.replicas()) == 1, 120)
        until(lambda: status(cluster) == 200, 120)
        assert "nothing can be made until this server is started again" in cluster.log()
    finally:
        cluster.stop()
