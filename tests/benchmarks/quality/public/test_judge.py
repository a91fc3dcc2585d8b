"""Asking a judge: what is sent, what is asked again, and what is given up."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from judge_server import JudgeServer, Reply, judging

from kontext_trt import BenchmarkError, OptionError
from kontext_trt.benchmarks.quality.public.judge import MAX_ANSWER_BYTES, Heard, Judge, JudgeOptions

PICTURES = ("data:image/png;base64,QQ==", "data:image/png;base64,Qg==")


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as opened:
        yield opened


def judge(server: JudgeServer, **options: Any) -> Judge:
    return Judge(JudgeOptions(**{"url": server.url, "model": "m", "wait_seconds": 0.01, **options}))


def ask(server: JudgeServer, **options: Any) -> Heard:
    return judge(server, **options).ask("which marks?", PICTURES)


def test_a_question(server: JudgeServer):
    heard = ask(server, key="secret")
    assert heard.marks is not None
    assert (heard.marks.semantic_consistency, heard.marks.perceptual_quality) == (7, 8.5)
    assert (heard.attempts, heard.faults, heard.error) == (1, {}, None)
    (asked,) = server.asked
    assert asked.body["model"] == "m"
    assert asked.body["temperature"] == 0
    assert asked.headers["Authorization"] == "Bearer secret"
    first, *images = asked.body["messages"][0]["content"]
    assert first == {"type": "text", "text": "which marks?"}
    assert [image["image_url"]["url"] for image in images] == list(PICTURES)


def test_no_key_is_no_header(server: JudgeServer):
    ask(server)
    assert "Authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(status=429, body=b"slow down"), "rate limit", "the judge answers 429: slow down"),
        (Reply(status=500, body=b"oh"), "server", "the judge answers 500: oh"),
        (Reply(status=503, body=b""), "server", "the judge answers 503: Service Unavailable"),
        (Reply(content="seven"), "malformed", "the answer is no JSON object: 'seven'"),
        (Reply(content='{"semantic_consistency": 99}'), "malformed", "semantic_consistency must be"),
        (Reply(body=b"<html>"), "malformed", "the answer is no chat completion: '<html>'"),
        (Reply(body=b'{"choices": []}'), "malformed", "the answer is no chat completion"),
        (Reply(body=b'{"choices": [{"message": {"content": null}}]}'), "malformed", "the completion has no text"),
        (Reply(body=b"x" * (MAX_ANSWER_BYTES + 1)), "malformed", "the answer has more than"),
        (Reply(wait=1.0), "timeout", "no answer within 0.2 s"),
        (
            Reply(body=b'{"choices": [', headers={"Content-Length": "99"}),
            "malformed",
            "the answer is no chat completion",
        ),
    ],
    ids=["429", "500", "503", "words", "marks", "html", "empty", "null", "large", "late", "cut"],
)
def test_what_may_get_better_is_asked_again(server: JudgeServer, reply: Reply, kind: str, words: str):
    seconds = 0.2 if kind == "timeout" else 30
    server.replies = [reply]
    if kind != "timeout":  # a slow machine may take as long for a good one
        heard = ask(server, timeout_seconds=seconds)
        assert heard.marks is not None
        assert (heard.attempts, heard.faults) == (2, {kind: 1})
    server.replies = [reply, reply]
    heard = ask(server, timeout_seconds=seconds, attempts=2)
    assert (heard.marks, heard.attempts, heard.faults) == (None, 2, {kind: 2})
    assert words in str(heard.error)


def test_the_raw_answer_is_kept(server: JudgeServer):
    server.replies = [Reply(content="seven"), Reply(status=500, body=b"oh")]
    assert ask(server, attempts=1).raw == "seven"
    assert ask(server, attempts=1).raw == "oh"
    assert '"semantic_consistency"' in ask(server).raw


def test_a_server_says_when_to_come_back(server: JudgeServer):
    server.replies = [Reply(status=429, headers={"Retry-After": "0.3"}), Reply(status=429)]
    start = time.perf_counter()
    assert ask(server, wait_seconds=0.0).attempts == 3
    assert 0.3 <= time.perf_counter() - start < 5


def test_pauses_grow_and_can_be_ended(server: JudgeServer):
    server.reply = lambda _: Reply(status=500)
    asking = judge(server, wait_seconds=30)
    threading.Timer(0.1, asking.stop).start()
    start = time.perf_counter()
    assert asking.ask("?", PICTURES).attempts == 1
    assert time.perf_counter() - start < 10


def test_a_question_that_is_refused_is_not_repeated(server: JudgeServer):
    server.reply = lambda _: Reply(status=400, body=b"content policy")
    heard = ask(server)
    assert (heard.attempts, heard.faults) == (1, {"refused": 1})
    assert heard.error == "the judge answers 400: content policy"


def test_a_model_that_takes_no_temperature(server: JudgeServer):
    server.reply = lambda asked: Reply(status=400, body=b"no temperature") if "temperature" in asked.body else Reply()
    asking = judge(server)
    assert asking.ask("?", PICTURES).faults == {"refused": 1}
    assert asking.ask("?", PICTURES).faults == {}
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 307, 302])
def test_what_every_question_would_get_ends_the_run(server: JudgeServer, status: int):
    server.reply = lambda _: Reply(status=status, body=b"no", headers={"Location": "http://127.0.0.1:1/"})
    with pytest.raises(BenchmarkError, match=rf"chat/completions: the judge answers {status}: no. Check --judge-url"):
        ask(server, key="secret")
    assert len(server.asked) == 1, "redirects are not followed"


def test_nobody_is_there():
    with judging() as server:
        pass
    heard = ask(server, attempts=2)
    assert heard.faults == {"connection": 2}
    assert "cannot be reached" in str(heard.error)


def test_a_connection_that_breaks_is_asked_again(server: JudgeServer, monkeypatch: pytest.MonkeyPatch):
    asking, broken = judge(server), iter([http.client.RemoteDisconnected("gone"), http.client.IncompleteRead(b"")])
    post = asking._opener.open

    def open_once(*given: Any, **named: Any) -> Any:
        if (error := next(broken, None)) is not None:
            raise error
        return post(*given, **named)

    monkeypatch.setattr(asking._opener, "open", open_once)
    assert asking.ask("?", PICTURES).faults == {"connection": 2}


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/chat/completions"),
        ("https://api.example.org/v1/chat/completions", "https://api.example.org/v1/chat/completions"),
    ],
)
def test_endpoints(given: str, endpoint: str):
    assert JudgeOptions(url=given, model="m").endpoint == endpoint


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "file:///etc/passwd", "http://", "http://u:p@h/v1", "http://h/?a=b"]
)
def test_urls_that_are_none(url: str):
    with pytest.raises(OptionError, match="--judge-url is the base of an API"):
        JudgeOptions(url=url, model="m")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": " "}, "--judge-model names the model"),
        ({"workers": 0}, "--judge-workers must be 1 to 64"),
        ({"workers": 65}, "--judge-workers must be 1 to 64"),
        ({"attempts": 0}, "the attempts 1 to 20, not 4 and 0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str):
    with pytest.raises(OptionError, match=words):
        JudgeOptions(**{"url": "http://h/v1", "model": "m", **options})


def test_keys_stay_out_of_sight_and_are_warned_about(caplog: pytest.LogCaptureFixture):
    assert "secret" not in repr(JudgeOptions(url="http://127.0.0.1:1/v1", model="m", key="secret"))
    assert JudgeOptions(url="https://h/v1", model="m", key="secret").key == "secret"
    assert caplog.text == ""
    JudgeOptions(url="http://example.org/v1", model="m", key="secret")
    assert "the judge's key goes to example.org without encryption" in caplog.text
    assert "secret" not in caplog.text
