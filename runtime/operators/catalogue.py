"""Lists the fused operators, with their bodies of standard operators.

`b` pictures of `s` tokens; `hidden` = heads * head width. Weights are (outputs, inputs), as checkpoints have them.
"""

from __future__ import annotations

from collections.abc import Mapping

from .body import END, Body, Reference
from .definition import Definition, Operator, Product, scale_of
from .picture_operators import PICTURE_OPERATORS

DOMAIN = "kontext"
VERSION = 3
"""The version of the domain; a body that changes, or comes, gets another."""


WEIGHT_ONLY = "WeightOnlyLinear"
"""The name of the linear layer whose weights alone are FP8, with one scale or one for each row."""


def _operand(body: Body, definition: Definition, name: str) -> str:
    """Return a product's operand, dequantized if it is FP8."""
    if not definition.format.operands:
        return name
    return body.dequantized(name, body.number(Reference(scale_of(name), float)))


def _linear(body: Body, definition: Definition, x: str, one: Product) -> str:
    form = definition.format
    scale = scale_of(one.weight) if form.operands else None
    return body.linear(x, one.weight, one.bias, scale, branch=(one.down, one.up) if form.branches else None)


def _attend(body: Body, definition: Definition) -> str:
    attend = body.fp8_attention if definition.format.attention else body.attention
    return attend("q", "k", "v")


def _quantize(body: Body, definition: Definition) -> None:
    body.give(body.result(body.wide("x"), definition.result_scale), "y")


def _modulate(body: Body, definition: Definition) -> None:
    body.give(body.result(body.modulated("x", "shift", "scale"), definition.result_scale), "normed")


def _gate(body: Body, definition: Definition) -> None:
    body.give(body.gated("x", "change", "gate"), "tokens")


def _gate_and_modulate(body: Body, definition: Definition) -> None:
    tokens = body.gated("x", "change", "gate")
    body.give(tokens, "tokens")
    body.give(body.result(body.modulated(tokens, "shift", "scale"), definition.result_scale), "normed")


def _linear_alone(body: Body, definition: Definition) -> None:
    (one,) = definition.operator.products
    body.give(_linear(body, definition, _operand(body, definition, "x"), one), "y")


def _linear_gelu(body: Body, definition: Definition) -> None:
    (one,) = definition.operator.products
    y = body.gelu(_linear(body, definition, _operand(body, definition, "x"), one))
    body.give(body.result(y, definition.result_scale), "y")


def _weight_only(body: Body, definition: Definition) -> None:
    body.give(body.weight_only("x", "weight", "weight_scale"), "y")


def _heads(body: Body, definition: Definition) -> None:
    q, k, v = definition.operator.products
    first = _operand(body, definition, "queried")
    x = _operand(body, definition, "x")
    queries = body.normed(_linear(body, definition, first, q), "query_norm")
    keys = body.normed(_linear(body, definition, x, k), "key_norm")
    queries = body.scaled(body.rotated(queries, "queried_cos", "queried_sin"), "query_norm")
    keys = body.rotated(keys, "cos", "sin")
    _give_heads(body, definition, queries, keys, _linear(body, definition, x, v))


def _joint_heads(body: Body, definition: Definition) -> None:
    text, image = (_operand(body, definition, name) for name in ("text", "image"))
    text_q, text_k, text_v, q, k, v = definition.operator.products

    def normed(first: Product, first_norm: str, second: Product, second_norm: str) -> str:
        pieces = (
            body.normed(_linear(body, definition, x, one), norm)
            for x, one, norm in ((text, first, first_norm), (image, second, second_norm))
        )
        return body.rotated(body.joined(*pieces, axis=1), "cos", "sin")

    queries = body.scaled(normed(text_q, "text_query_norm", q, "query_norm"), "query_norm")
    keys = normed(text_k, "text_key_norm", k, "key_norm")
    values = body.joined(_linear(body, definition, text, text_v), _linear(body, definition, image, v), 1)
    _give_heads(body, definition, queries, keys, values)


def _give_heads(body: Body, definition: Definition, queries: str, keys: str, values: str) -> None:
    """Give float32 queries and keys and values of the graph's own type, each rounded once.

    For FP8, queries and keys are turned so that rounding costs less, and their products stay.
    """
    if definition.format.result:
        queries = body.hadamard(queries, "query_norm")
        keys = body.hadamard(body.smoothed(keys), "key_norm")
    wide = {"q": queries, "k": keys, "v": body.wide(values) if definition.format.result else ""}
    for name, value in wide.items():
        scale = scale_of(name) if definition.format.result else None
        body.give(body.result(value, scale) if value else values, name)


def _attend_alone(body: Body, definition: Definition) -> None:
    mixed = _attend(body, definition)
    body.give(body.result(body.wide(mixed), "result_scale") if definition.format.result else mixed, "mixed")


def _attend_beside_gelu(body: Body, definition: Definition) -> None:
    (one,) = definition.operator.products
    mixed = body.wide(_attend(body, definition))
    y = body.gelu(_linear(body, definition, _operand(body, definition, "x"), one))
    body.give(body.result(body.joined(mixed, y, -1), definition.result_scale), "both")


def _joint_linear(body: Body, definition: Definition) -> None:
    joint, length = _operand(body, definition, "joint"), body.length("text_length")
    text, image = definition.operator.products
    first = body.rows(joint, body.numbers(0), length)
    second = body.rows(joint, length, body.numbers(END))
    body.give(_linear(body, definition, first, text), "text_change")
    body.give(_linear(body, definition, second, image), "image_change")


def _layer(x: str, stem: str = "") -> Product:
    return Product(x=x, weight=f"{stem}weight", bias=f"{stem}bias")


def _qkv(x: str, queried: str, stem: str = "") -> tuple[Product, ...]:
    return _layer(queried, f"{stem}q_"), _layer(x, f"{stem}k_"), _layer(x, f"{stem}v_")


OPERATORS: Mapping[str, Operator] = {
    one.name: one
    for one in (
        Operator(name="Quantize", values=("x",), outputs=("y",), results=("y",), fp8_alone=True, body=_quantize),
        Operator(
            name="Modulate",
            values=("x", "shift", "scale"),
            outputs=("normed",),
            results=("normed",),
            body=_modulate,
        ),
        Operator(name="Gate", values=("x", "change", "gate"), outputs=("tokens",), body=_gate),
        Operator(
            name="GateModulate",
            values=("x", "change", "gate", "shift", "scale"),
            outputs=("tokens", "normed"),
            results=("normed",),
            body=_gate_and_modulate,
        ),
        Operator(name="Linear", values=("x",), products=(_layer("x"),), outputs=("y",), body=_linear_alone),
        Operator(
            name="LinearGelu",
            values=("x",),
            products=(_layer("x"),),
            outputs=("y",),
            results=("y",),
            body=_linear_gelu,
        ),
        Operator(
            name=WEIGHT_ONLY,
            values=("x", "weight", "weight_scale"),
            narrow=("weight",),
            outputs=("y",),
            body=_weight_only,
        ),
        Operator(
            name="Heads",
            values=("queried", "x", "query_norm", "key_norm", "queried_cos", "queried_sin", "cos", "sin"),
            products=_qkv("x", "queried"),
            outputs=("q", "k", "v"),
            results=("q", "k", "v"),
            separate_results=True,
            tables=("queried_cos", "queried_sin", "cos", "sin"),
            body=_heads,
        ),
        Operator(
            name="JointHeads",
            values=("text", "image", "text_query_norm", "text_key_norm", "query_norm", "key_norm", "cos", "sin"),
            products=(*_qkv("text", "text", "text_"), *_qkv("image", "image")),
            outputs=("q", "k", "v"),
            results=("q", "k", "v"),
            separate_results=True,
            tables=("cos", "sin"),
            body=_joint_heads,
        ),
        Operator(
            name="Attend",
            values=("q", "k", "v"),
            outputs=("mixed",),
            attributes=("num_heads",),
            attention=("q", "k", "v"),
            results=("mixed",),
            body=_attend_alone,
        ),
        Operator(
            name="AttendBesideGelu",
            values=("q", "k", "v", "x"),
            products=(_layer("x"),),
            outputs=("both",),
            attributes=("num_heads",),
            attention=("q", "k", "v"),
            results=("both",),
            body=_attend_beside_gelu,
        ),
        Operator(
            name="JointLinear",
            values=("joint",),
            products=(_layer("joint", "text_"), _layer("joint")),
            outputs=("text_change", "image_change"),
            attributes=("text_length",),
            body=_joint_linear,
        ),
        *PICTURE_OPERATORS,
    )
}

DEFINITIONS: Mapping[str, Definition] = {
    one.name: one
    for operator in OPERATORS.values()
    for one in (Definition(operator, form) for form in operator.formats())
}
