"""The functions of fused operators: valid ONNX, the same every time, and told from another's."""

from __future__ import annotations

import hashlib

import onnx
import pytest
from fused_models import Sizes, attributes, model
from onnx import helper

from kontext_trt.engine.components import Precision
from kontext_trt.runtime.operators.body import Reference
from kontext_trt.runtime.operators.catalogue import DEFINITIONS, VERSION
from kontext_trt.runtime.operators.functions import foreign_functions, formats_of, function_bytes

SIZES = Sizes()


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_graph_of_it_is_valid_onnx(name: str, precision: Precision):
    definition = DEFINITIONS[name]
    proto = onnx.ModelProto.FromString(model(definition, precision, attributes(definition, SIZES)))
    onnx.checker.check_model(proto, full_check=True)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_it_reads_every_input_and_attribute_and_gives_every_output(name: str):
    definition = DEFINITIONS[name]
    nodes = definition.body(Precision.BF16).nodes
    read = {value for node in nodes for value in node.inputs}
    assert set(definition.inputs) <= read
    assert set(definition.operator.outputs) <= {node.output for node in nodes}
    named = {value.name for node in nodes for _, value in node.attributes if isinstance(value, Reference)}
    assert named == set(definition.attributes)


def test_none_has_a_name_of_onnxs_own():
    """TensorRT-RTX's parser would take it for that one, and read no body."""
    standard = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert standard & set(DEFINITIONS) == {"Upsample"}, "which bundles of before have, and none that is made now"


def of(name: str, precision: Precision = Precision.BF16) -> onnx.ModelProto:
    definition = DEFINITIONS[name]
    return onnx.ModelProto.FromString(model(definition, precision, attributes(definition, SIZES)))


def test_ours_are_ours_after_another_program_has_written_them():
    proto = of("JointHeads_fp8_to_fp8")
    assert foreign_functions(proto.SerializeToString(), Precision.BF16) == []
    assert {form.suffix for form in formats_of(proto.SerializeToString())} == {"_fp8_to_fp8"}


def test_one_of_another_precision_is_not_ours():
    assert foreign_functions(of("GateModulate").SerializeToString(), Precision.FP32) == ["GateModulate"]


@pytest.mark.parametrize(
    "change",
    [
        lambda function: function.node.pop(),
        lambda function: function.node[0].input.append(""),
        lambda function: function.attribute.append("more"),
        lambda function: function.node[-1].attribute.append(helper.make_attribute("more", 1)),
        lambda function: function.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
        lambda function: setattr(function, "name", "Other"),
        lambda function: setattr(function, "overload", "other"),
        lambda function: setattr(function.node[0], "domain", "com.microsoft"),
        lambda function: setattr(function.node[0], "overload", "other"),
    ],
)
def test_whatever_differs_makes_it_anothers(change):
    proto = of("LinearGelu")
    change(proto.functions[0])
    assert foreign_functions(proto.SerializeToString(), Precision.BF16) == [proto.functions[0].name]


def test_functions_of_other_domains_do_not_matter():
    proto = of("Linear")
    other = helper.make_function("com.example", "F", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [])
    proto.functions.append(other)
    assert foreign_functions(proto.SerializeToString(), Precision.BF16) == []


def test_bytes_are_the_same_every_time():
    for definition in DEFINITIONS.values():
        assert function_bytes(definition, Precision.BF16) == function_bytes(definition, Precision.BF16)


def test_a_body_that_changes_counts_the_version_up():
    """Bundles of before lose their kernels then, and are told why by the version. By 3, one operator more, none did."""
    digest = hashlib.sha256()
    for name in sorted(DEFINITIONS):
        for precision in (Precision.BF16, Precision.FP32):
            digest.update(function_bytes(DEFINITIONS[name], precision))
    known = {
        1: "26b29bc9b223dacb8d2bb6e0fba8befa1cd18c3a1080f9cf76b75969dac12e2a",
        2: "fa44d6a681ac45d60d248df0d9644cab5d99a6c0fbf694927cd222cb19e9b91e",
        3: "6fc4dc65a55398e0f324c9304a67d9f22361398e18b5b8147cec8d399b498627",
    }
    assert digest.hexdigest() == known[VERSION], "count catalogue.VERSION up, and add the new digest here"
