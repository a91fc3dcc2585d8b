"""What kernels raise comes out whole, also from several threads and from ONNX Runtime's own; signals wait."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from own_operators import X, model, run, session

from kontext_trt.runtime.operators import failures
from kontext_trt.runtime.operators.failures import raising_whole
from kontext_trt.runtime.operators.kernels import Attribute, Call, Operator
from kontext_trt.runtime.operators.library import Domain


class Raises:
    """What `error` makes is raised by a kernel, or already by what makes it; none, and the kernel copies."""

    def __init__(self) -> None:
        self.error: Callable[[], BaseException | None] = lambda: None

    def operator(self, name: str, *, when_made: bool = False) -> Operator:
        return Operator(
            name=name,
            inputs=("fp32",),
            outputs=("fp32",),
            make=self._make_or_raise if when_made else lambda _: self._call,
        )

    def _make_or_raise(self, _: Mapping[str, Attribute]) -> Any:
        self._raise()
        return self._call

    def _raise(self) -> None:
        if (error := self.error()) is not None:
            try:
                raise KeyError("what led to it")
            except KeyError:
                raise error  # noqa: B904 # the context stays

    def _call(self, call: Call) -> None:
        self._raise()
        (x,) = call.inputs
        y = call.output(0, x.shape)
        ctypes.memmove(y, x.address, 4 * math.prod(x.shape))


RAISES, RAISES_MADE = Raises(), Raises()
DOMAIN = Domain("tests.failures")
DOMAIN.add(RAISES.operator("Raises"), RAISES_MADE.operator("RaisesMade", when_made=True))
FLOATS = ("fp32", "fp32")
RAISING = model("Raises", FLOATS, domain=DOMAIN.name)
SetError = Callable[[Callable[[], BaseException | None]], None]


@pytest.fixture
def raises(monkeypatch: pytest.MonkeyPatch) -> SetError:
    """Has the kernels, and what makes them, raise what a function returns; None is nothing."""

    def set_error(error: Callable[[], BaseException | None]) -> None:
        for one in (RAISES, RAISES_MADE):
            monkeypatch.setattr(one, "error", error)

    return set_error


def rows(length: int, count: int) -> bytes:
    """Kernels in rows, each of which computes with what the one before it did."""
    nodes = [
        helper.make_node("Raises", [f"t{row}_{at}" if at else "x"], [f"t{row}_{at + 1}"], domain=DOMAIN.name)
        for row in range(count)
        for at in range(length)
    ]
    nodes.append(helper.make_node("Sum", [f"t{row}_{length}" for row in range(count)], ["y"]))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN.name, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString()


def test_where_nobody_asks_it_is_a_text_in_onnx_runtimes_error(raises: SetError):
    one = session(RAISING, DOMAIN)
    raises(lambda: ValueError("größer\0 als \udc80 erlaubt"))
    with pytest.raises(Exception, match=r"Raises: ValueError: größer  als \? erlaubt \[") as caught:
        one.run(None, {"x": X})
    assert not isinstance(caught.value, ValueError)
    assert failures._kept._errors == {}


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("when_made", [False, True])
def test_the_same_exception_comes_out(raises: SetError, kind: type[BaseException], when_made: bool):
    one = None if when_made else session(RAISING, DOMAIN)
    error = kind("no such device")
    error.__cause__ = OSError("the cause")
    raises(lambda: error)
    with pytest.raises(kind) as caught:
        if one is None:
            session(model("RaisesMade", FLOATS, domain=DOMAIN.name), DOMAIN)
        else:
            run(one)
    assert caught.value is error
    assert isinstance(error.__context__, KeyError), "its own, not ONNX Runtime's error"
    assert isinstance(error.__cause__, OSError)
    assert "_raise" in {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    assert failures._kept._errors == {}


def test_an_error_of_onnx_runtimes_own_passes():
    one = session(RAISING, DOMAIN)
    with pytest.raises(Exception, match="Got invalid dimensions for input"):
        run(one, X[:, :3])


def test_each_thread_gets_its_own(raises: SetError):
    """Over one session that all share, and one of each thread's own; every third thread has no error."""

    def error() -> BaseException | None:
        name = threading.current_thread().name
        return None if name == "0" else ValueError(name)

    one = session(RAISING, DOMAIN)
    raises(error)
    wrong: list[object] = []

    def work() -> None:
        name = threading.current_thread().name
        for used in (one, session(RAISING, DOMAIN)):
            for _ in range(50):
                try:
                    found: object = "0" if (run(used) == X).all() else "other numbers"
                except ValueError as raised:
                    found = str(raised)
                if found != name:
                    wrong.append((name, found))

    threads = [threading.Thread(target=work, name=str(number % 3)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert failures._kept._errors == {}


def test_a_kernel_may_fail_on_a_thread_of_onnx_runtimes(raises: SetError):
    one = session(rows(1, 8), DOMAIN, parallel=True)
    threads: set[int] = set()

    def error() -> BaseException:
        threads.add(threading.get_ident())
        return ValueError("on whatever thread")

    raises(error)
    for _ in range(20):
        with pytest.raises(ValueError, match="on whatever thread"):
            run(one)
    assert threads - {threading.get_ident()}, "it used one"
    assert failures._kept._errors == {}, "of the others that failed in the same run nothing is left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_run(raises: SetError, number: signal.Signals):
    """Sent at any moment, so mostly while no Python runs: ctypes dropped what its handler raised in a callback."""

    def handle(*_: object) -> None:
        raise KeyboardInterrupt

    one, before = session(rows(300, 1), DOMAIN), signal.signal(number, handle)
    main, calls, begun = threading.main_thread().ident or 0, [0], threading.Event()

    def count() -> None:
        calls[0] += 1
        begun.set()

    def send(delay: float) -> None:
        begun.wait()
        threading.Event().wait(delay)
        signal.pthread_kill(main, number)

    raises(count)
    try:
        for trial in range(10):
            calls[0] = 0
            begun.clear()
            sender = threading.Thread(target=send, args=(trial * 2e-4,))
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                run(one)
                sender.join()  # the run was over before
            sender.join()
            assert calls[0] == 300, "all kernels ran"
        assert signal.getsignal(number) is handle
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raising_whole():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_signals_are_left_alone():
    seen: list[object] = []

    def work() -> None:
        with raising_whole():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
    np.testing.assert_array_equal(run(session(RAISING, DOMAIN)), X)
