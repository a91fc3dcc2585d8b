"""What each of several processes opens: what it is not given, what is looked at beforehand, what it serves with."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from certificates import write_files
from starlette.testclient import TestClient

from kontext_trt import KontextError, OptionError
from kontext_trt.runtime.executors.options import AnyExecutor, ExecutorName, OnnxRuntimeOptions, TensorRtOptions
from kontext_trt.runtime.filters.parse import FilterDetails
from kontext_trt.runtime.outputs.provenance import PictureSigner
from kontext_trt.serving import replica
from kontext_trt.serving.options import Review, ServingOptions
from kontext_trt.serving.replica import Safeguards, Served


def of(bundle: Path, state: Path, safeguards: Safeguards | None = None, **options: Any) -> Served:
    return Served(
        bundle=bundle,
        executor=OnnxRuntimeOptions(),
        options=ServingOptions(state=state, **options),
        safeguards=safeguards or Safeguards(),
    )


def keys(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


def test_replicas_need_a_folder_and_are_given_no_secret(tmp_path: Path):
    with pytest.raises(OptionError, match="so they need a folder that all of them have: --state FOLDER"):
        Served(bundle=tmp_path, executor=OnnxRuntimeOptions(), options=ServingOptions())
    files = write_files(tmp_path)
    for secret in (
        {"keys": ("secret",)},
        {"review": Review(keys=("secret",))},
        {"signer": PictureSigner.open(files.chain, files.key)},
    ):
        with pytest.raises(OptionError, match="each replica reads keys from files, which safeguards name"):
            of(tmp_path, tmp_path / "state", **secret)
    safeguards = Safeguards(filters=("words:/x",), details=FilterDetails(labels=("a",)), signing=(tmp_path, tmp_path))
    served = of(tmp_path, tmp_path / "state", safeguards, review=Review())
    assert pickle.loads(pickle.dumps(served)) == served


def test_what_is_wrong_is_said_beforehand(bundle_path: Path, tmp_path: Path):
    (tmp_path / "open").mkdir(mode=0o755)
    state, one, same = tmp_path / "state", keys(tmp_path / "one", "a"), keys(tmp_path / "two", "b", "a")
    for served, words in (
        (of(tmp_path / "none", state), "does not exist"),
        (of(bundle_path, tmp_path / "open"), "is open to others"),
        (of(bundle_path, state, lora_folder=tmp_path), "was exported without --lora-rank"),
        (of(bundle_path, state, Safeguards(api_key_file=tmp_path / "no")), "cannot be read as a file of keys"),
        (of(bundle_path, state, Safeguards(filters=("words:/no/such",))), "/no/such"),
        (of(bundle_path, state, Safeguards(signing=(tmp_path / "no", tmp_path / "no"))), "cannot be read"),
        (
            of(bundle_path, state, Safeguards(api_key_file=one, review_key_file=same), review=Review()),
            "or they could approve of their own pictures",
        ),
    ):
        with pytest.raises(KontextError, match=re.escape(words)):
            served.check()
    of(bundle_path, state).check()


def test_a_replica_has_the_gpus_that_share_its_requests(tmp_path: Path):
    def sharing(executor: Any) -> Served:
        return Served(bundle=tmp_path, executor=executor, options=ServingOptions(state=tmp_path / "state"))

    for executor in (AnyExecutor(), TensorRtOptions(), OnnxRuntimeOptions(), AnyExecutor(devices=(1,))):
        assert sharing(executor).gpus == 1
    for executor in (AnyExecutor(), TensorRtOptions(), OnnxRuntimeOptions()):
        for gpus in (0, 0.5, 1, 2):
            sharing(executor).check_gpus(gpus)
    shared = sharing(AnyExecutor(devices=(0, 1, 2, 3)))
    assert shared.gpus == 4
    shared.check_gpus(4)
    for gpus in (0, 0.5, 3):
        with pytest.raises(OptionError, match=f"4 devices share .* it would have {gpus} GPUs: leave out --gpus"):
            shared.check_gpus(gpus)
    with pytest.raises(OptionError, match=r"numbers them from 0: give --devices 2, not the numbers 0, 2"):
        sharing(ExecutorName.CUDA.options(devices=(0, 2))).check_gpus(2)
    sharing(ExecutorName.CPU.options(devices=(0, 2))).check_gpus(0)


def test_filters_keys_and_who_signs_are_each_replicas_own(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files, words = write_files(tmp_path), tmp_path / "words.txt"
    words.write_text("weapon\n")
    safeguards = Safeguards(
        api_key_file=keys(tmp_path / "keys", "client"),
        review_key_file=keys(tmp_path / "reviewers", "reviewer"),
        filters=(f"words:{words}",),
        signing=(files.chain, files.key),
    )
    monkeypatch.setattr(replica, "log_lines", lambda *, prompts: None)
    app = of(bundle_path, tmp_path / "state", safeguards, review=Review(seconds=5)).app("r1")
    service = app.state.service
    assert service.name == bundle_path.name
    assert (service.options.review, service.options.keys) == (Review(keys=("reviewer",), seconds=5), ("client",))
    assert service.options.signer.name == "test signer"
    with TestClient(app, base_url="http://localhost") as client:
        body = {"prompt": "a weapon", "size": "32x32", "num_inference_steps": 1}
        headers = {"authorization": "Bearer client"}
        refused = client.post("/v1/images/generations", json=body, headers=headers)
        assert refused.json()["error"]["code"] == "content_policy_violation"
        counts = client.get("/metrics", headers=headers).text
    line = 'kontext_filtered_total{answer="refused",filter="words.txt",replica="r1",stage="prompt"} 1.0'
    assert line in counts
    assert 'kontext_review_waiting{replica="r1"} 0.0' in counts
    service.runner.close()
