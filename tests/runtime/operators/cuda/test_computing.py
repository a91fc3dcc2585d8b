"""What fused operators launch, on a device that only writes it down, and what they refuse before they launch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from fused_models import Sizes, attributes, shapes

from kontext_trt.engine.errors import ExecutorError
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cuda import weight_only
from kontext_trt.runtime.operators.cuda.attention import AttentionShape
from kontext_trt.runtime.operators.cuda.computing import Kernels
from kontext_trt.runtime.operators.cuda.products import LinearCall
from kontext_trt.runtime.operators.fused import FusedKernel
from kontext_trt.runtime.operators.kernels import Call, Input
from kontext_trt.runtime.operators.picture_operators import PICTURE_OPERATORS

SIZES = Sizes(pictures=2, text=24, image=40, heads=2, width=64, wide=256)
STREAM = 4096


class WrittenDown:
    """A device, products and attention in one, which write down what they are asked for."""

    scratches_freed = 0
    stream = stream_address = STREAM

    def __init__(self) -> None:
        self.did: list[tuple[str, Any]] = []
        self.constants: dict[int, float] = {}

    def function(self, name: str, **numbers: int) -> str:
        return " ".join([name, *(f"{key}={int(value)}" for key, value in sorted(numbers.items()))])

    def launch(self, function: str, grid: int, block: int, arguments: Any, stream: int = STREAM) -> None:
        self.did.append((function, (grid, block, tuple(value for value, _ in arguments))))

    def scratch(self, size_bytes: int, place: str = "results") -> int:
        return (1 << 40) + (("results", "branches", "widened", "pieces", "means").index(place) << 36)

    def prepare(self, call: LinearCall) -> None:
        self.did.append(("prepare", call))

    def constant(self, value: float) -> int:
        address = (1 << 50) + 4 * len(self.constants)
        self.constants[address] = value
        return address

    def __call__(self, first: LinearCall | AttentionShape, other: Any = None) -> None:
        """Of a product the other is its stream."""
        is_product = isinstance(first, LinearCall)
        self.did.append(("product", first) if is_product else ("attention", (first, other)))

    @property
    def kernels(self) -> Kernels:
        whole = cast(Any, self)
        kernels = Kernels.__new__(Kernels)  # without libraries
        kernels.device = kernels.products = kernels.attention = kernels.convolutions = whole
        kernels.exchange, kernels.lanes = None, {}
        return kernels


class Called:
    """A call with inputs of given shapes at made-up addresses."""

    def __init__(self, given: dict[str, tuple[int, ...]], stream: int = STREAM) -> None:
        self.inputs = tuple(Input((index + 1) << 20, shape) for index, shape in enumerate(given.values()))
        self.stream = stream
        self.outputs: dict[int, tuple[int, ...]] = {}

    def output(self, index: int, shape: tuple[int, ...]) -> int:
        self.outputs[index] = shape
        return (index + 1) << 30


def run(name: str, change: dict[str, tuple[int, ...]] | None = None, **other: float) -> tuple[WrittenDown, Called]:
    definition, device = DEFINITIONS[name], WrittenDown()
    call = Called(shapes(definition, SIZES) | (change or {}))
    FusedKernel(device.kernels, definition, attributes(definition, SIZES) | other)(cast(Call, call))
    return device, call


@pytest.mark.parametrize("name", [name for name, one in DEFINITIONS.items() if one.operator not in PICTURE_OPERATORS])
def test_outputs_have_the_shapes_of_the_body(name: str):
    _, call = run(name)
    joint, hidden = SIZES.text + SIZES.image, SIZES.hidden
    tokens = {"text_change": SIZES.text, "image_change": SIZES.image}
    queries = {"Heads": SIZES.text, "JointHeads": joint}.get(DEFINITIONS[name].operator.name, SIZES.image)
    tokens |= {"q": queries, "k": joint if "Joint" in name else SIZES.image}
    tokens["v"] = tokens["k"]
    widths = {"both": hidden + SIZES.wide, "y": SIZES.wide if "Gelu" in name else hidden}
    outputs = DEFINITIONS[name].operator.outputs
    assert {outputs[index]: shape for index, shape in call.outputs.items()} == {
        output: (SIZES.pictures, tokens.get(output, SIZES.image), widths.get(output, hidden)) for output in outputs
    }


def test_products_of_joint_heads_write_rows_of_one_sequence():
    device, _ = run("JointHeads")
    products = [one for kind, one in device.did if kind == "product"]
    assert len(products) == 6 * SIZES.pictures
    rows = {(one.y.address - (2 << 30)) // (2 * SIZES.hidden): one.y.rows for one in products[4:8]}
    joint = SIZES.text + SIZES.image
    assert rows == {0: SIZES.text, joint: SIZES.text, SIZES.text: SIZES.image, joint + SIZES.text: SIZES.image}


def test_fp8_products_get_the_reciprocal_of_the_results_scale():
    device, _ = run("LinearGelu_fp8_to_fp8", x_scale=0.5, result_scale=0.25)
    ((_, product),) = device.did
    assert device.constants[product.x_scale] == 0.5
    assert device.constants[product.y_inverse] == 4.0
    assert product.x.fp8
    assert product.weight.fp8
    assert product.y.fp8


def test_an_fp8_result_of_wide_operands_is_rounded_by_a_kernel():
    device, _ = run("LinearGelu_to_fp8")
    (_, product), (function, _) = device.did
    assert not product.y.fp8
    assert product.gelu
    assert function == "quantize"


def test_a_weight_that_alone_is_fp8_is_widened_piece_by_piece(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weight_only, "PIECE_BYTES", 2 * 80 * SIZES.hidden)
    device, call = run("WeightOnlyLinear")
    weight, scales = (call.inputs[DEFINITIONS["WeightOnlyLinear"].inputs.index(n)] for n in ("weight", "weight_scale"))
    (name, (_, _, first)), (_, product), (_, (_, _, second)), (_, rest) = device.did
    assert name == "widen"
    assert (first[0], first[2], first[6]) == (weight.address, 80 * SIZES.hidden // 8, scales.address)
    assert (second[0], second[2]) == (weight.address + 80 * SIZES.hidden, (SIZES.hidden - 80) * SIZES.hidden // 8)
    assert second[6:] == (scales.address + 4 * 80, 1)
    assert (product.y.columns, rest.y.columns) == (80, SIZES.hidden - 80)
    assert rest.y.address == product.y.address + 2 * 80
    assert product.y.stride == rest.y.stride == SIZES.hidden
    assert product.weight.address == first[1] == second[1]
    assert not product.weight.fp8


def test_a_weight_that_alone_is_fp8_may_have_one_scale():
    device, call = run("WeightOnlyLinear", {"weight_scale": ()})
    ((_, (_, _, arguments)), _) = device.did
    assert arguments[5:] == (1.0, call.inputs[2].address, 0)


def test_a_branch_is_added_before_the_epilogue():
    """The product is measured first, for that writes to its result; then the branch is written there, and added."""
    device, _ = run("LinearGelu_branched")
    (first, measured), (_, down), (_, up), (last, product) = device.did
    assert (first, last) == ("prepare", "product")
    assert measured == product
    assert product.gelu
    assert product.addend == product.y == up.y
    assert down.x == product.x
    assert up.x == down.y
    assert (down.y.columns, down.y.stride) == (SIZES.rank, 16), "rows begin at multiples of 16 bytes"
    assert not down.bias + up.bias


def test_an_fp8_product_adds_a_branch_from_elsewhere_of_widened_values():
    device, _ = run("LinearGelu_branched_fp8_to_fp8", x_scale=0.5)
    _, (function, (_, _, arguments)), (_, down), (_, up), (_, product) = device.did
    assert function == "widen"
    assert arguments[0] == product.x.address
    assert arguments[1] == down.x.address
    assert arguments[5:] == (0.5, 0, 0)
    assert not down.x.fp8
    assert product.addend == up.y
    assert up.y.address != product.y.address
    assert up.y.address >= down.y.address + 2 * down.y.rows * down.y.stride
    assert not up.y.fp8


def test_values_that_several_layers_read_are_widened_once():
    device, _ = run("Heads_branched_fp8")
    widened = [what for what, _ in device.did if what == "widen"]
    assert len(widened) == 2, "queries are of other tokens than keys and values"


def test_attention_beside_a_product_leaves_no_copy():
    device, _ = run("AttendBesideGelu")
    (_, (shape, call)), (_, product) = device.did
    assert shape.stride == product.y.stride == SIZES.hidden + SIZES.wide
    assert product.y.address == call.result + 2 * SIZES.hidden


def test_what_lay_in_scratch_memory_that_was_freed_is_not_enqueued_again():
    definition, device = DEFINITIONS["Attend_to_fp8"], WrittenDown()
    kernel = FusedKernel(device.kernels, definition, attributes(definition, SIZES))
    call, made = cast(Call, Called(shapes(definition, SIZES))), list[tuple[Any, ...]]()
    scratch = device.scratch
    device.scratch = lambda *given: made.append(given) or scratch(*given)
    for freed, asked in ((0, 1), (0, 1), (1, 2), (1, 2)):
        device.scratches_freed = freed
        kernel(call)
        assert len(made) == asked


def test_wide_heads_are_not_rounded_where_their_scores_lie():
    wide = dict.fromkeys("qkv", (2, 16, 512))
    with pytest.raises(
        ExecutorError, match="heads of width 256 have no kernel for attention in bf16 with a result in FP8"
    ):
        run("Attend_to_fp8", wide)


def test_the_same_tensors_are_enqueued_again_and_not_checked_again(monkeypatch: pytest.MonkeyPatch):
    definition, device = DEFINITIONS["JointHeads_fp8_to_fp8"], WrittenDown()
    kernel = FusedKernel(device.kernels, definition, attributes(definition, SIZES))
    given = shapes(definition, SIZES)
    kernel(cast(Call, Called(given)))
    first = list(device.did)
    monkeypatch.setattr("kontext_trt.runtime.operators.fused.computing", None)  # it is not asked again
    kernel(cast(Call, Called(given)))
    assert device.did == first * 2
    with pytest.raises(TypeError):  # other shapes are new
        kernel(cast(Call, Called(given | {"text": (2, 23, SIZES.hidden)})))


def test_another_stream_is_refused():
    definition, device = DEFINITIONS["Gate"], WrittenDown()
    with pytest.raises(ExecutorError, match="Gate runs on stream 0x0, and its kernels on 0x1000"):
        FusedKernel(device.kernels, definition, {})(cast(Call, Called(shapes(definition, SIZES), stream=0)))
    assert device.did == []


WRONG: list[tuple[str, dict[str, tuple[int, ...]], str]] = [
    ("Gate", {"change": (2, 40, 64)}, r"change must be \(2, 40, 128\)"),
    ("Gate", {"gate": (1, 1, 128)}, r"gate must be \(2, 1, 128\)"),
    ("Modulate", {"x": (2, 40, 120)}, r"x must be \(b, s, c\), c a multiple of 16"),
    ("Modulate", {"x": (40, 128)}, r"x must be \(b, s, c\)"),
    ("Modulate", {"x": (0, 40, 128)}, r"x must be \(b, s, c\)"),
    ("Linear", {"weight": (128, 112)}, r"weight must be \(128, 128\)"),
    ("Linear", {"weight": (120, 128)}, r"weight must be \(n, c\), n a multiple of 16"),
    ("Linear", {"bias": (64,)}, r"bias must be \(128,\)"),
    ("Linear_fp8", {"weight_scale": (128,)}, r"weight_scale must be \(\)"),
    ("Linear_branched", {"down": (64, 12)}, r"down must be \(128, 12\)"),
    ("Linear_branched", {"down": (128, 0)}, r"down must be \(128, rank\)"),
    ("Linear_branched", {"up": (8, 128)}, r"up must be \(12, 128\)"),
    ("Heads", {"queried": (1, 24, 128)}, "queried must be of the pictures and the width of x"),
    ("Heads", {"query_norm": (48,)}, "a power of two from 16 to 256 that divides 128"),
    ("Heads", {"key_norm": (32,)}, r"cos must be \(40, 16\)"),
    ("Heads", {"cos": (39, 32)}, r"cos must be \(40, 32\)"),
    ("JointHeads", {"image": (2, 40, 64)}, "text must be of the pictures and the width of image"),
    ("JointHeads", {"text_key_norm": (32,)}, r"text_key_norm must be \(64,\)"),
    ("Attend", {"k": (2, 64, 64)}, "k must be of the pictures and the width of q"),
    ("Attend", {"v": (2, 63, 128)}, r"v must be \(2, 64, 128\)"),
    ("AttendBesideGelu", {"x": (2, 41, 128)}, "x must be of the pictures and tokens of q"),
]


@pytest.mark.parametrize(("name", "change", "words"), WRONG)
def test_shapes_that_do_not_fit_are_refused_before_anything_is_launched(
    name: str, change: dict[str, tuple[int, ...]], words: str
):
    with pytest.raises(ExecutorError, match=words) as error:
        run(name, change)
    assert "its inputs are " in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LinearGelu_to_fp8", {"result_scale": 0.0}, "result_scale is 0.0, and must be a positive number"),
        ("LinearGelu_to_fp8", {"result_scale": float("nan")}, "result_scale is nan"),
        ("Linear_fp8", {"x_scale": float("inf")}, "x_scale is inf"),
        ("Attend", {"num_heads": 0}, "num_heads is 0, and must be from 1 to 128"),
        ("Attend", {"num_heads": 3}, "3 heads do not divide 128"),
        ("JointLinear", {"text_length": 64}, "text_length is 64, and must be from 1 to 63"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(name: str, value: dict[str, float], words: str):
    with pytest.raises(ExecutorError, match=words):
        run(name, **value)


def test_products_of_one_kind_share_a_plan():
    one = run("Linear")[0].did[0][1]
    assert one.kind == replace(one, bias=1).kind
    assert one.kind != replace(one, gelu=True).kind
    assert one.kind != replace(one, y=replace(one.y, stride=one.y.stride + 16)).kind


def test_every_definition_is_checked_by_more_than_its_name():
    """A kernel that accepts one dimension more in any of its inputs would compute addresses by it."""
    for name, definition in DEFINITIONS.items():
        for key, shape in shapes(definition, SIZES).items():
            with pytest.raises(ExecutorError):
                run(name, {key: (*shape, 1)})


def test_nothing_is_launched_where_something_is_refused():
    device = WrittenDown()
    definition = DEFINITIONS["Modulate"]
    call = Called(shapes(definition, SIZES) | {"scale": (2, 2, 128)})
    with pytest.raises(ExecutorError):
        FusedKernel(device.kernels, definition, {})(cast(Call, call))
    assert device.did == []
    assert call.outputs == {}
