"""The command that serves: what it refuses before anything is opened, and what it hands on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import write_files
from typer.testing import CliRunner

from kontext_trt import KontextError
from kontext_trt.cli.app import app
from kontext_trt.serving import server


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, prompts = logging.getLogger(), logging.getLogger("kontext_trt.runtime.inputs.prompts")
    handlers, level = list(root.handlers), prompts.level
    yield
    root.handlers[:] = handlers
    prompts.setLevel(level)
    for name in ("kontext_trt.serving", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["serve", *map(str, arguments)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--host", "0.0.0.0"),
            "on 0.0.0.0 everybody who reaches this machine could use it: give --api-key",
        ),
        (("--api-key-file", "/no/such/file"), "cannot be read as a file of keys"),
        (("--waiting", "0"), "waiting must be a number above 0, not 0"),
        (("--max-body", "much"), "much"),
        (("--replicas", "2"), "--replicas is about replicas; give --ray, too"),
        (("--gpus", "0"), "--gpus is about replicas; give --ray, too"),
        (("--review-key-file", "keys"), "--review-key-file is about a review; ask for one with --review"),
        (("--host", "0.0.0.0", "--no-key", "--review"), "on 0.0.0.0 everybody who reaches this machine could approve"),
        (("--review", "--review-seconds", "0"), "seconds must be a number above 0, not 0"),
        (("--filter", "words"), "a filter is words:FILE"),
        (("--c2pa-cert", "chain.pem"), "a signature needs --c2pa-cert and --c2pa-key, both"),
    ],
)
def test_what_is_not_possible_is_said_before_anything_is_opened(options: tuple[str, ...], words: str):
    done = invoke("no-such-bundle", *options)
    assert isinstance(done.exception, KontextError)
    assert words in str(done.exception)


def test_options_reach_the_application(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda application, **where: served.append((application, where)))
    keys = tmp_path / "keys"
    keys.write_text("one\n")
    keys.chmod(0o600)
    done = invoke(
        bundle_path,
        *("--host", "0.0.0.0", "--port", 9, "--api-key-file", keys, "--name", "mine", "--allow-host", "a.example"),
        *("--allow-origin", "https://b.example", "--waiting", 3, "--deadline", 7, "--max-body", "1MiB", "--batch", 2),
        *("--max-steps", 5, "--session-seconds", 60, "--log-prompts", "--state", tmp_path / "state"),
    )
    assert done.exit_code == 0, done.exception
    ((application, where),) = served
    assert where == {"host": "0.0.0.0", "port": 9, "grace_seconds": 7}
    options = application.state.service.options
    assert (options.name, options.keys, options.hosts) == ("mine", ("one",), ("a.example",))
    assert (options.origins, options.log_prompts) == (("https://b.example",), True)
    limits = options.limits
    assert (limits.waiting, limits.seconds, limits.body_bytes, limits.batch, limits.steps) == (3, 7, 1 << 20, 2, 5)
    assert options.keeping.session_seconds == 60
    assert (options.state, options.lora_folder) == (tmp_path / "state", None)


def test_a_folder_of_loras_needs_a_bundle_with_branches(bundle_path: Path, tmp_path: Path):
    done = invoke(bundle_path, "--lora-folder", tmp_path)
    assert isinstance(done.exception, KontextError)
    assert "was exported without --lora-rank" in str(done.exception)


def test_without_the_extra_it_says_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("kontext_trt.serving")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("prometheus_client", "uvicorn"):
        monkeypatch.setitem(sys.modules, name, None)
    done = invoke("bundle")
    assert isinstance(done.exception, KontextError)
    assert "serving needs uvicorn, prometheus-client; install it with: pip install 'kontext-trt[serve]'" in str(
        done.exception
    )


def test_without_ray_it_says_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.delitem(sys.modules, "kontext_trt.serving.ray_app", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = invoke("bundle", "--ray", "--state", "state")
    assert isinstance(done.exception, KontextError)
    assert "--ray needs ray; install it with: pip install 'kontext-trt[ray]'" in str(done.exception)


def test_filters_review_and_signer_reach_the_application(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda application, **_: served.append(application))
    files, words, keys = write_files(tmp_path), tmp_path / "words.txt", tmp_path / "reviewers"
    words.write_text("weapon\n")
    keys.write_text("one\n")
    keys.chmod(0o600)
    done = invoke(
        bundle_path,
        *("--filter", f"words:{words}", "--review", "--review-key-file", keys, "--review-seconds", 5),
        *("--c2pa-cert", files.chain, "--c2pa-key", files.key),
    )
    assert done.exit_code == 0, done.output
    service = served[0].state.service
    assert [count.filter for count in service.runner.filter_counts] == ["words.txt"]
    assert (service.options.review.keys, service.options.review.seconds) == (("one",), 5)
    assert service.options.signer.name == "test signer"
