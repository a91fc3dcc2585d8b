"""Operators in sessions: types, attributes, what is refused, and the ends of sessions, threads and processes."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from few_descriptors import cycles_of_this_block
from own_operators import NUMPY, ScaledAdd, W, X, model, run, session

from kontext_trt.engine.errors import ExecutorError
from kontext_trt.engine.number_types import NUMBER_TYPES
from kontext_trt.runtime.operators.kernels import Call, Operator
from kontext_trt.runtime.operators.library import Domain

ROOT = Path(__file__).parents[3]
FLOATS = ("fp32",) * 3
SCALED = {
    types: ScaledAdd(types[:2], types[2]) for types in (FLOATS, ("bf16", "bf16", "bf16"), ("int64", "fp32", "fp32"))
}
QUANTIZE = ScaledAdd(("bf16", "fp32"), "fp8")


def nothing(call: Call) -> None: ...


DOMAIN = Domain("tests.library")
DOMAIN.add(
    *(one.operator() for one in SCALED.values()),
    QUANTIZE.operator("Quantize"),
    Operator(
        name="OnlyCuda",
        inputs=("fp32",),
        outputs=("fp32",),
        make=lambda _: nothing,
        provider="CUDAExecutionProvider",
    ),
)
SCALED_ADD = model("ScaledAdd", FLOATS, domain=DOMAIN.name, function=True)


@pytest.mark.parametrize(
    ("name", "types"), [*(("ScaledAdd", one) for one in SCALED), ("Quantize", ("bf16", "fp32", "fp8"))]
)
def test_types_attributes_and_shapes(name: str, types: tuple[str, ...]):
    scaled = QUANTIZE if name == "Quantize" else SCALED[types]
    content = model(name, types, domain=DOMAIN.name, factor=3.0, mode="süß")
    binding = (one := session(content, DOMAIN)).io_binding()
    arrays = {port: value.astype(NUMPY[kind]) for port, value, kind in zip("xw", (X, W), types[:2], strict=True)}
    for (port, array), kind in zip(arrays.items(), types, strict=False):
        binding.bind_input(port, "cpu", 0, NUMBER_TYPES[kind].onnx_number, list(array.shape), array.ctypes.data)
    y = np.zeros(X.shape, NUMPY[types[-1]])
    binding.bind_output("y", "cpu", 0, NUMBER_TYPES[types[-1]].onnx_number, list(y.shape), y.ctypes.data)
    scaled.seen.clear()
    one.run_with_iobinding(binding)
    wanted = arrays["x"].astype(np.float32) * 3 + arrays["w"].astype(np.float32)
    np.testing.assert_array_equal(y.astype(np.float32), wanted.astype(y.dtype).astype(np.float32))
    assert scaled.seen == [({"factor": 3.0, "count": 7, "mode": "süß"}, 0)]


def test_the_kernel_wins_over_the_function_of_its_name():
    np.testing.assert_array_equal(run(session(SCALED_ADD, DOMAIN), w=W), X * 2 + W)
    np.testing.assert_array_equal(run(session(SCALED_ADD, None), w=W), X * 2 - W)


def test_a_session_has_the_operators_that_it_is_given():
    options = onnxruntime.SessionOptions()
    DOMAIN.add_to(options, [one for one in DOMAIN.operators if one.name == "Quantize"])
    one = onnxruntime.InferenceSession(SCALED_ADD, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(run(one, w=W), X * 2 - W)


def test_no_elements():
    assert run(session(SCALED_ADD, DOMAIN), X[:0], w=W[:0]).shape == (0, 4)


def test_an_attribute_of_another_type_is_refused():
    with pytest.raises(ExecutorError, match="the attribute factor is 3, of type int; float is wanted"):
        session(model("ScaledAdd", FLOATS, domain=DOMAIN.name, factor=3), DOMAIN)


@pytest.mark.parametrize("name", ["OnlyCuda", "ScaledAdd"])
def test_what_is_added_for_another_provider_or_other_types_is_an_error(name: str):
    types = ("fp32", "fp32") if name == "OnlyCuda" else ("fp16",) * 3
    with pytest.raises(Exception, match=name):
        session(model(name, types, domain=DOMAIN.name, function=name == "ScaledAdd"), DOMAIN)


@pytest.mark.parametrize("kind", ["nvfp4", "float32"])
def test_an_operator_of_other_types_is_refused(kind: str):
    with pytest.raises(ValueError, match=f"Odd: no operator can have {kind}; fp64, fp32"):
        Operator(name="Odd", inputs=(kind,), outputs=("fp32",), make=lambda _: nothing)


def test_an_attribute_that_is_no_number_and_no_text_is_refused():
    with pytest.raises(ValueError, match="Odd: the attribute flag is a bool, no float, int or str"):
        Operator(name="Odd", inputs=(), outputs=("fp32",), make=lambda _: nothing, attributes={"flag": True})


def test_more_dimensions_than_there_may_be_are_refused():
    def wide(call: Call) -> None:
        call.output(0, (1,) * 9)

    domain = Domain("tests.library.wide")
    types = ("fp32", "fp32")
    domain.add(
        Operator(name="WideIn", inputs=types[:1], outputs=types[1:], make=lambda _: nothing),
        Operator(name="WideOut", inputs=types[:1], outputs=types[1:], make=lambda _: wide),
    )
    with pytest.raises(ValueError, match="output 0 has 9 dimensions; at most 8"):
        run(session(model("WideOut", types, domain=domain.name), domain))
    one = session(model("WideIn", types, domain=domain.name, shape=[1] * 9), domain)
    with pytest.raises(ValueError, match="input 0 has 9 dimensions; at most 8"):
        run(one, np.zeros((1,) * 9, np.float32))


def test_an_operator_is_added_once_and_with_one_number_of_inputs():
    with pytest.raises(
        ValueError, match=r"tests\.library\.ScaledAdd is there for these types and CPUExecutionProvider"
    ):
        DOMAIN.add(SCALED[FLOATS].operator())
    other = Operator(name="ScaledAdd", inputs=("fp16",), outputs=("fp16",), make=lambda _: nothing)
    with pytest.raises(ValueError, match="has 2 inputs and 1 outputs for other types"):
        DOMAIN.add(other)
    with pytest.raises(ValueError, match=r"ScaledAdd: not all are added to tests\.library"):
        DOMAIN.add_to(onnxruntime.SessionOptions(), [other])


def test_there_is_one_domain_of_a_name():
    with pytest.raises(ValueError, match=r"there is a domain tests\.library in this process"):
        Domain("tests.library")


def test_a_domain_is_added_to_options_once():
    options = onnxruntime.SessionOptions()
    DOMAIN.add_to(options)
    with pytest.raises(ExecutorError, match=r"the domain tests\.library was added to these options before"):
        DOMAIN.add_to(options)
    DOMAIN.add_to(onnxruntime.SessionOptions())


def test_two_domains_in_one_session():
    other = Domain("tests.library.other")
    other.add(ScaledAdd(("fp32", "fp32"), "fp32").operator())
    options = onnxruntime.SessionOptions()
    DOMAIN.add_to(options)
    other.add_to(options)
    content = model("ScaledAdd", FLOATS, domain=other.name, factor=5.0)
    one = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(run(one, w=W), X * 5 + W)


@pytest.mark.parametrize(
    "order", [(1, 2, 0), *(pytest.param(one, marks=pytest.mark.check) for one in ((0, 1, 2), (2, 1, 0)))]
)
def test_sessions_end_in_any_order(order: tuple[int, ...]):
    scaled = SCALED[FLOATS]
    with cycles_of_this_block():  # sessions of other tests do not end meanwhile
        sessions = {number: session(SCALED_ADD, DOMAIN) for number in range(3)}
        before = scaled.closed
        for number in order:
            for one in sessions.values():
                run(one, w=W)
            one = None
            del sessions[number]
            gc.collect()
            assert scaled.closed == before + 3 - len(sessions)


def test_a_kernel_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture):
    class Stuck:
        def __call__(self, call: Call) -> None: ...

        def close(self) -> None:
            raise OSError("it is stuck")

    domain = Domain("tests.library.stuck")
    domain.add(Operator(name="Stuck", inputs=("fp32",), outputs=("fp32",), make=lambda _: Stuck()))
    with cycles_of_this_block():
        one = session(model("Stuck", ("fp32", "fp32"), domain=domain.name), domain)
        del one
        gc.collect()
    assert "Stuck was not closed: OSError: it is stuck" in caplog.text


def test_threads_share_a_session_and_a_domain():
    shared, right = session(SCALED_ADD, DOMAIN), []

    def work(number: int) -> None:
        for one in (shared, session(SCALED_ADD, DOMAIN)):
            right.append(bool((run(one, X + number, w=W) == (X + number) * 2 + W).all()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 16


PROGRAM = """
import multiprocessing
from own_operators import ScaledAdd, W, X, model, run, session
from kontext_trt.runtime.operators.library import Domain

DOMAIN = Domain("tests")
DOMAIN.add(ScaledAdd(("fp32", "fp32"), "fp32").operator())
CONTENT = model("ScaledAdd", ("fp32",) * 3, domain="tests")

def work(where):
    kept = session(CONTENT, DOMAIN)
    print(where, float(run(kept, w=W).sum()), flush=True)
    return kept

if __name__ == "__main__":
    live = work("parent")
    circle = [work("circle")]
    circle.append(circle)
    child = multiprocessing.get_context("spawn").Process(target=work, args=("child",))
    child.start()
    child.join()
    print(child.exitcode)
"""


def test_a_process_ends_with_live_sessions_and_a_spawned_one_has_its_own(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    paths = f"{ROOT / '.links'}:{ROOT / 'tests/support'}"
    done = subprocess.run([sys.executable, program], env={"PYTHONPATH": paths}, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == ["parent 60.0", "circle 60.0", "child 60.0", "0"]
