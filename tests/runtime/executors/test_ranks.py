"""The processes of a group: what is asked of them, and how they fail."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from few_descriptors import num_descriptors
from processes import wait_until
from started_ranks import Start, hasten, is_gone, jobs, pids_of

from kontext_trt import ExecutorError, KontextError, OptionError, RequestError
from kontext_trt.runtime.cancelling import cancelled_by
from kontext_trt.runtime.executors import channel, ranks
from kontext_trt.runtime.executors.channel import pack
from kontext_trt.runtime.executors.ranks import Ranks


def test_all_are_asked_and_answer_in_their_order(start: Start):
    before = num_descriptors()
    made = start(3)
    assert [rank for rank, _ in made.ask("tell")] == [0, 1, 2]
    assert made.ask_each("echo", [("a",), ("b",), ("c",)]) == ["a", "b", "c"]
    assert made.ask_apart("echo", "only", ranks=[1]) == ["only"]
    large = np.arange(3 << 20, dtype=np.float32)
    assert all(np.array_equal(one, large) for one in made.ask("echo", large)), "both ways"
    assert not any(made.ask("signals"))
    made.close()
    made.close()
    assert num_descriptors() == before
    with pytest.raises(ExecutorError, match="given up earlier: it was closed; open the bundle again"):
        made.ask("tell")


def test_what_there_is_no_memory_for_is_not_sent_to_any(start: Start, monkeypatch: pytest.MonkeyPatch):
    made = start()
    pids_of(made)

    def put(arrays: object) -> int:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(made._channels[1]._sending, "put", put)
    with pytest.raises(ExecutorError, match=r"not enough memory to hand the devices what .*: Cannot allocate memory$"):
        made.ask("echo", 1)
    monkeypatch.undo()
    assert made.ask("echo", 2) == [2, 2]


def test_an_answer_that_there_is_no_memory_for_is_an_error_and_they_live_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    made = start()
    pids_of(made)

    def get(lengths: object, size_bytes: int) -> list[memoryview]:
        raise OSError("Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(made._channels[1]._receiving, "get", get)
        with pytest.raises(ExecutorError, match=r"^there is not enough memory for its answer: Too many open files$"):
            made.ask_apart("echo", 1)
    assert made.ask("echo", 2) == [2, 2]


def test_what_was_sent_once_and_is_large_does_not_stay(start: Start, monkeypatch: pytest.MonkeyPatch):
    """As the matrices of a LoRA are, to every rank."""
    monkeypatch.setattr(channel, "KEPT_BYTES", 1 << 20)
    made = start()
    made.ask("echo", np.zeros(3 << 20, np.uint8))
    assert [os.fstat(one._sending.descriptor).st_size for one in made._channels] == [0, 0]


def test_what_all_raise_is_raised_and_they_live_on(start: Start):
    made = start()
    with pytest.raises(RequestError, match=r"^too large$"):
        made.ask("fail", {0: "RequestError", 1: "RequestError"}, "too large")
    with pytest.raises(OptionError, match=r"^x$"):
        made.ask_apart("fail", {1: "OptionError"}, "x")
    with pytest.raises(ExecutorError, match="not enough memory on this machine"):
        made.ask("fail", {0: "MemoryError", 1: "MemoryError"}, "")
    with pytest.raises(ExecutorError, match=r"^ZeroDivisionError: oh$"):
        made.ask("fail", {0: "ZeroDivisionError", 1: "ZeroDivisionError"}, "oh")
    with pytest.raises(KontextError, match="a filter"):
        made.ask("fail", {0: "ContentRefused", 1: "ContentRefused"}, "a filter")
    with pytest.raises(ExecutorError, match="has no attribute 'nothing'"):
        made.ask("nothing")
    with pytest.raises(AttributeError, match=r"local|pickle"):
        made.ask_each("echo", [("this one can be sent",), (lambda: "this not",)])
    assert made.ask("echo", 1) == [1, 1]
    assert made.lost == ""


@pytest.mark.parametrize("kinds", [{1: "RequestError"}, {0: "RequestError", 1: "ExecutorError"}], ids=["one", "unlike"])
def test_ranks_that_do_not_agree_are_given_up(start: Start, kinds: dict[int, str]):
    made = start()
    pids = pids_of(made)
    words = r"cpu:\d failed: no more; the other devices were given up with it: open the bundle again"
    with pytest.raises(ExecutorError, match=words):
        made.ask("fail", kinds, "no more")
    assert all(map(is_gone, pids))
    with pytest.raises(ExecutorError, match=r"given up earlier: cpu:\d failed: no more; open the bundle again"):
        made.ask("tell")


def test_one_that_fails_while_others_work(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks, "GRACE_S", 0.3)
    made = start()
    made.ask("tell")
    began = time.monotonic()
    arguments = [({0: "ExecutorError"}, "no memory"), ()]
    calls = {
        0: ranks.Call(method="fail", arguments=arguments[0]),
        1: ranks.Call(method="sleep", arguments=({1: 60.0},)),
    }
    with pytest.raises(ExecutorError, match="cpu:0 failed: no memory"):
        made._answers({rank: pack(call) for rank, call in calls.items()}, 1, apart=False)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_one_that_is_killed_while_they_work_is_named(start: Start, number: int):
    made = start()
    pids = pids_of(made)
    began = time.monotonic()
    with pytest.raises(ExecutorError, match=f"the process of cpu:1 was ended by {signal.Signals(number).name}; the"):
        made.ask("die", (1,), number)
    assert time.monotonic() - began < 10
    assert all(map(is_gone, pids))


def test_one_that_is_killed_between_calls_is_named(start: Start):
    made = start()
    pids = pids_of(made)
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(ExecutorError, match="the process of cpu:0 was ended by SIGKILL; the other devices"):
        made.ask("tell")
    assert all(map(is_gone, pids))
    assert made.lost == "the process of cpu:0 was ended by SIGKILL"


def test_where_one_is_seen_to_be_gone_the_others_are_ended(start: Start):
    """They hold memory, and nobody may ask for anything any more."""
    made, before = start(3), num_descriptors()
    pids = pids_of(made)
    os.kill(pids[1], signal.SIGKILL)
    wait_until(lambda: made.lost != "", "it is killed")  # its first thread may be gone before the others
    wait_until(lambda: made.lost and all(map(is_gone, pids)), "all are gone", 10)
    assert made.lost == "the process of cpu:1 was ended by SIGKILL"
    with pytest.raises(ExecutorError, match="given up earlier: the process of cpu:1 was ended by SIGKILL; open the"):
        made.ask("tell")
    assert num_descriptors() < before


def test_one_that_is_gone_is_named_whoever_sees_it_first(start: Start):
    """What is asked for on another thread finds those gone that were ended since."""
    made = start(3)
    pids = pids_of(made)
    looking = threading.Thread(target=wait_until, args=(lambda: made.lost != "", "it is killed"))
    looking.start()
    with pytest.raises(ExecutorError, match=r"^the process of cpu:2 was ended by SIGKILL; the other devices"):
        made.ask("die", (2,), signal.SIGKILL)
    looking.join()
    assert made.lost == "the process of cpu:2 was ended by SIGKILL"
    assert all(map(is_gone, pids))


def test_a_fork_looks_at_none_of_them(start: Start):
    made = start()
    pids_of(made)
    if not (child := os.fork()):
        os._exit(1 if made.lost else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert made.ask("echo", "alive") == ["alive"] * 2


def test_one_that_leaves_or_never_began_is_named(start: Start):
    with pytest.raises(ExecutorError, match="the process of cpu:0 left with code 7"):
        start(1).ask("leave", 7)
    with pytest.raises(ExecutorError, match=r"the process of cpu:\d left with code 1"):
        start(2, command=("/bin/false",)).ask("tell")


def test_a_command_that_cannot_be_run_leaves_nothing_open():
    before = num_descriptors()
    with pytest.raises(FileNotFoundError):
        Ranks(jobs(), timeout_s=1, command=("/nowhere/python",))
    assert num_descriptors() == before


def test_one_that_hangs_is_given_up(start: Start):
    made = start()
    pids = pids_of(made)
    hasten(made, 1)
    os.kill(pids[1], signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ExecutorError, match="cpu:1 did not answer for 1 s"):
        made.ask("echo", 1)
    assert 0.9 < time.monotonic() - began < 8
    assert all(map(is_gone, pids))


def test_of_those_that_do_not_answer_the_one_that_is_stopped_is_named(start: Start):
    """The other ones wait for it."""
    made = start(3)
    pids = pids_of(made)
    hasten(made, 1)
    os.kill(pids[1], signal.SIGSTOP)
    with pytest.raises(ExecutorError, match=r"^cpu:1 did not answer for 1 s: stopped by a signal or a debugger; the"):
        made.ask("sleep", {0: 60.0, 2: 60.0})
    made = start(3)
    pids_of(made)
    hasten(made, 1)
    with pytest.raises(ExecutorError, match=r"^cpu:0, cpu:2 did not answer for 1 s; the other devices"):
        made.ask("sleep", {0: 60.0, 2: 60.0})


def test_one_that_takes_nothing_is_given_up(start: Start):
    """What it is sent is more than a socket holds."""
    made = start()
    pids = pids_of(made)
    hasten(made, 0.5)
    os.kill(pids[0], signal.SIGSTOP)
    with pytest.raises(ExecutorError, match=r"cpu:0 did not take what it was asked for 0\.5 s"):
        made.ask("echo", bytes(32 << 20))
    assert all(map(is_gone, pids))


def cancelled() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_a_cancel_waits_for_what_is_under_way(start: Start):
    made = start()
    pids_of(made)
    with cancelled_by(cancelled()):
        assert made.ask("sleep", {0: 1.0}) == [0, 1]
    assert made.ask("echo", "alive") == ["alive"] * 2


@pytest.mark.parametrize("size", [1, 32 << 20], ids=["small", "more than a socket holds"])
def test_one_that_is_stopped_while_its_request_is_cancelled_is_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch, size: int
):
    """Whether it has taken what it is asked, or not."""
    monkeypatch.setattr(ranks, "GRACE_S", 0.5)
    made = start(3)
    pids = pids_of(made)
    os.kill(pids[1], signal.SIGSTOP)
    words = r"cpu:1 did not answer for [01]\.\d+ s after the request was cancelled: stopped by a signal or a debugger"
    with cancelled_by(cancelled()), pytest.raises(ExecutorError, match=f"^{words}; the other devices were given up"):
        made.ask("echo", bytes(size))
    assert all(map(is_gone, pids))
    with pytest.raises(ExecutorError, match=f"given up earlier: {words}; open the bundle again"):
        made.ask("tell")


def test_those_that_go_on_though_their_request_is_cancelled_are_given_up(start: Start, monkeypatch: pytest.MonkeyPatch):
    """A request of several pictures has as many times as long."""
    monkeypatch.setattr(ranks, "CANCELLED_S", 0.7)
    made = start()
    pids = pids_of(made)
    with cancelled_by(cancelled()):
        assert made.ask_each("sleep", [({0: 1.2},), ({},)], times=4) == [0, 1]
        with pytest.raises(
            ExecutorError, match=r"^cpu:0 did not answer for [01]\.?\d* s after the request was cancelled;"
        ):
            made.ask("sleep", {0: 60.0})
    assert all(map(is_gone, pids))


@pytest.mark.check
def test_one_that_stops_amid_its_answer_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch):
    made = start()
    pids = pids_of(made)
    hasten(made, 2)
    connection = made._channels[1].connection
    receive = connection.recv_bytes

    def stop_and_receive() -> bytes:
        os.kill(pids[1], signal.SIGSTOP)
        return receive()

    monkeypatch.setattr(connection, "recv_bytes", stop_and_receive)
    with pytest.raises(ExecutorError, match="cpu:1 stopped in its answer for 2 s"):
        made.ask("echo", bytes(32 << 20))
    assert all(map(is_gone, pids))


def interrupted(made: Ranks, seconds: dict[int, float], *, times: int = 1) -> None:
    """Ask ranks to sleep, and interrupt that after a while, once or several times."""
    done = threading.Event()

    def interrupt() -> None:
        for _ in range(times):
            time.sleep(0.2)
            if not done.is_set():
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            made.ask("sleep", seconds)
        done.set()
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_answers_and_they_live_on(start: Start):
    made = start()
    made.ask("tell")
    interrupted(made, {0: 0.5, 1: 0.6})
    assert made.ask("echo", "not the answer to what was interrupted") == ["not the answer to what was interrupted"] * 2


def test_an_interrupt_that_is_not_answered_ends_them(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks, "GRACE_S", 0.1)
    made = start()
    pids = pids_of(made)
    interrupted(made, {1: 60})
    assert all(map(is_gone, pids))
    with pytest.raises(ExecutorError, match="given up earlier: cpu:1 did not stop when it was interrupted; open"):
        made.ask("tell")


def test_a_second_interrupt_ends_them(start: Start):
    """No call may be given the answer to one before it."""
    made = start()
    pids = pids_of(made)
    interrupted(made, {1: 60}, times=2)
    assert all(map(is_gone, pids))
    with pytest.raises(ExecutorError, match="given up earlier: waiting for them was interrupted"):
        made.ask("tell")


def test_an_interrupt_amid_a_message_ends_them(start: Start, monkeypatch: pytest.MonkeyPatch):
    made = start()
    pids = pids_of(made)

    def half(message: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(made._channels[1].connection, "send_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        made.ask("tell")
    assert all(map(is_gone, pids))
    with pytest.raises(ExecutorError, match="given up earlier: a message to or from them was interrupted"):
        made.ask("tell")
