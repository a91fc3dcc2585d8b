"""What Ray is told of a deployment, before anything of Ray is started."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from certificates import write_files
from typer.testing import CliRunner

from kontext_trt import KontextError, OptionError
from kontext_trt.cli.app import app
from kontext_trt.runtime.executors.options import AnyExecutor, OnnxRuntimeOptions
from kontext_trt.serving import ray_app
from kontext_trt.serving.options import Limits, Review, ServingOptions
from kontext_trt.serving.ray_app import ONGOING_BESIDE, Scaling, application
from kontext_trt.serving.replica import Safeguards, Served

pytestmark = pytest.mark.check


def of(tmp_path: Path, **options: Any) -> Served:
    return Served(
        bundle=tmp_path, executor=OnnxRuntimeOptions(), options=ServingOptions(state=tmp_path / "state", **options)
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"replicas": 0}, "there is 1 replica at least, not 0"),
        ({"replicas": 3, "most": 2}, "the most replicas are 3 at least, as many as there always are, not 2"),
        ({"gpus": -1}, "a replica has 0 or more GPUs, not -1"),
        ({"cpus": float("nan")}, "a replica has 0 or more CPU cores, not nan"),
        ({"ongoing": 0}, "the requests per replica to aim at are a number above 0, not 0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], words: str):
    with pytest.raises(OptionError, match=words):
        Scaling(**wrong)


def test_the_applications_own_queue_is_reached_first():
    options = Scaling(replicas=2).options(64, 600)
    assert options["num_replicas"] == 2
    assert options["max_ongoing_requests"] == 64 + 1 + ONGOING_BESIDE
    assert options["graceful_shutdown_timeout_s"] == 600
    assert "autoscaling_config" not in options


def test_replicas_by_load_are_rays_own():
    options = Scaling(replicas=2, most=8, ongoing=3).options(64, 600)
    assert options["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 3}
    assert "num_replicas" not in options
    more = {"autoscaling_config": {"min_replicas": 0, "max_replicas": 4}, "ray_actor_options": {"num_gpus": 0.5}}
    options = Scaling(replicas=2, more=more).options(64, 600)
    assert options["autoscaling_config"] == more["autoscaling_config"]
    assert options["ray_actor_options"] == {"num_gpus": 0.5}
    assert "num_replicas" not in options


def test_a_deployment_is_made_of_it(tmp_path: Path):
    made = application(of(tmp_path, limits=Limits(waiting=3)), Scaling(most=4, gpus=0))
    assert made._bound_deployment.max_ongoing_requests == 3 + 1 + ONGOING_BESIDE
    for more in ({"num_gpus": 1}, {"autoscaling_config": {"max_replicas": "many"}}):
        with pytest.raises(OptionError, match="Ray does not take these options of a deployment"):
            application(of(tmp_path), Scaling(more=more))


def test_a_replica_has_a_gpu_for_each_device(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr(ray_app, "serve_replicas", lambda served, scaling, **_: asked.append((served, scaling)))
    command = ["serve", str(bundle_path), "--ray", "--state", str(tmp_path / "state"), "--devices"]
    done = CliRunner().invoke(app, [*command, "4"])
    assert done.exit_code == 0, done.exception
    ((served, scaling),) = asked
    assert (served.executor, scaling.gpus) == (AnyExecutor(devices=(0, 1, 2, 3)), 4)
    application(served, scaling)
    with pytest.raises(OptionError, match="4 devices share each request of a replica, and it would have 2 GPUs"):
        application(served, Scaling(gpus=2))


def test_the_command_hands_on_what_it_is_given(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("RAY_DEDUP_LOGS", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    asked: list[Any] = []
    monkeypatch.setattr(
        ray_app, "serve_replicas", lambda served, scaling, **where: asked.append((served, scaling, where))
    )
    keys, reviewers, file = tmp_path / "keys", tmp_path / "reviewers", tmp_path / "options.json"
    for number, path in enumerate((keys, reviewers)):
        path.write_text(f"{number}\n")
        path.chmod(0o600)
    signing = write_files(tmp_path)
    file.write_text(json.dumps({"max_replicas_per_node": 1}))
    command = ["serve", bundle_path, "--ray", "--replicas", 2, "--max-replicas", 3, "--gpus", 0, "--port", 9]
    command += ["--filter", "command:true x", "--review", "--review-key-file", reviewers, "--review-seconds", 5]
    command += ["--c2pa-cert", signing.chain, "--c2pa-key", signing.key]
    command += ["--api-key-file", keys, "--state", tmp_path / "state", "--ray-options", file, "--ray-address", "auto"]
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0, done.exception
    ((served, scaling, where),) = asked
    assert os.environ["RAY_DEDUP_LOGS"] == os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert where == {"host": "127.0.0.1", "port": 9, "address": "auto"}
    assert scaling == Scaling(replicas=2, most=3, gpus=0, more={"max_replicas_per_node": 1})
    assert (served.bundle, served.options.keys, served.options.signer) == (bundle_path.resolve(), (), None)
    assert served.options.review == Review(seconds=5)
    assert served.safeguards == Safeguards(
        api_key_file=keys, review_key_file=reviewers, filters=("command:true x",), signing=(signing.chain, signing.key)
    )
    file.write_text("[1]")
    done = CliRunner().invoke(app, [*map(str, command)])
    assert isinstance(done.exception, KontextError)
    assert "is no JSON object of options of a deployment" in str(done.exception)


def test_what_is_wrong_is_said_before_ray_starts(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_app.ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    for bundle, state, words in (
        (tmp_path / "none", tmp_path / "state", "does not exist"),
        (bundle_path, tmp_path / "open", "is open to others"),
    ):
        done = CliRunner().invoke(app, ["serve", str(bundle), "--ray", "--state", str(state)])
        assert isinstance(done.exception, KontextError)
        assert words in str(done.exception)
