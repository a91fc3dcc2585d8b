"""Docstrings are full sentences that stand alone: `help()` and a reference show each without what is around it.

Ruff's D rules see neither what a sentence begins with nor the strings under constants; this does. Functions begin with
a verb in the imperative ("Return ..."), modules and classes with one in the third person ("Holds ..."), constants,
fields and properties with a noun ("The ...").
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("cli", "engine", "runtime", "export", "serving", "benchmarks", "examples")
NOUNS = ("The", "A", "An", "Every", "Each", "All", "No", "True if")
"""The words that the docstring of a constant, field or property may begin with."""
VERBS = """
    accept add admit allocate answer append apply ask assemble assert attach begin bring build calibrate call carry
    change check choose clean clip close collect combine compare compile compute concatenate convert copy count
    create cut decide decode define delete deny describe discard divide do double draw drop edit embed empty encode
    end enqueue ensure estimate evaluate exchange exit expect export extend fail fetch fill find finish fit fix fold
    follow forget free freeze fuse gather generate give go group guard hash hear hide hold ignore implement import
    inspect install join judge keep label launch lay learn leave let limit list load lock log look lower make map mark
    measure merge mix move name normalize note open order own pack pad parse pass perform pick place plan plot
    predict prepare preprocess print project prune put quantize raise read record refuse release remove rename
    render replace report reproduce require reserve reset resolve restore return reuse rotate round run sample save
    say scale score see select send serialize serve set share shift show sign skip soften sort split stand start
    state stop store strip sum take tell test time tokenize trace track train translate try tune turn type update
    upload use wait walk warn watch weigh widen wrap write yield
"""
"""The verbs that other docstrings may begin with, in the imperative; a new one is added here."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Docstring:
    """A docstring. `kind` is "module", "class", "function" or "attribute"; a property is an attribute."""

    kind: str
    name: str
    text: str


def is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def is_property(node: ast.AST) -> bool:
    names = [ast.unparse(one) for one in getattr(node, "decorator_list", ())]
    return any(name.rpartition(".")[2] in ("property", "cached_property") for name in names)


def docstrings(source: str) -> Iterator[Docstring]:
    """Every string that documents: first in a module, class or function, or right after an assignment."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)) is not None:
            kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
            yield Docstring(kind="attribute" if is_property(node) else kind, name=getattr(node, "name", ""), text=text)
        body = getattr(node, "body", None)
        for before, after in itertools.pairwise(body) if isinstance(body, list) else ():
            if isinstance(before, ast.Assign | ast.AnnAssign) and is_string(after):
                target = before.target if isinstance(before, ast.AnnAssign) else before.targets[0]
                yield Docstring(kind="attribute", name=ast.unparse(target), text=ast.literal_eval(after.value))


def third_person(verb: str) -> str:
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return f"{verb}es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}s"


def fault(docstring: Docstring) -> str:
    """What is wrong with a docstring; "" if nothing is."""
    first = docstring.text.split("\n\n")[0].rstrip()
    if not first.endswith("."):
        return "its first paragraph does not end with a full stop"
    opener = first.split(maxsplit=1)[0].rstrip(",;:.")
    if docstring.kind == "attribute":
        return "" if first.startswith(tuple(f"{noun} " for noun in NOUNS)) else f"begins with {opener}, not a noun"
    verbs = VERBS.split()
    if docstring.kind != "function":
        verbs = [third_person(verb) for verb in verbs]
    if opener in {verb.capitalize() for verb in verbs}:
        return ""
    form = "in the imperative" if docstring.kind == "function" else "in the third person"
    return f"begins with {opener}, which is no verb {form} that VERBS has"


def sources() -> list[Path]:
    files = [*ROOT.glob("*.py"), *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
    return sorted(files)


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_docstrings_stand_alone(file: Path):
    faults = [(one.name, found) for one in docstrings(file.read_text()) if (found := fault(one))]
    assert faults == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("module", "From a checkpoint to a bundle: six graphs and a manifest."),
        ("module", "Calibration: the runtime's own requests."),
        ("class", "See `Executor`."),
        ("class", "`input_ids` (b, 77) int32 -> `pooled` (b, width) float32."),
        ("class", "Of one request, whose noise is given."),
        ("class", "What a demo made."),
        ("class", "Hold what a demo made."),
        ("function", "At whether a request that waits for its turn is cancelled."),
        ("function", "As many as there were noise levels in training."),
        ("function", "By diffusers' own names."),
        ("function", "For a file among the bundle's weights; without its full hash."),
        ("function", "In words, what went wrong."),
        ("function", "Whether a name is what `pattern` says."),
        ("function", "Beside the product."),
        ("function", "Beyond the last step, the last one's."),
        ("function", "The end of a bin."),
        ("function", "Returns the end of a bin."),
        ("function", "return the end of a bin."),
        ("function", "(b, k, hidden) -> k times (b, 1, hidden)."),
        ("function", "Return the end of a bin"),
        ("function", ""),
        ("attribute", "Bytes. TensorRT asks it of every input."),
        ("attribute", "Whether a plan is there."),
        ("attribute", "Over what was seen, not who saw it."),
        ("attribute", "Its bits in a float32."),
    ],
)
def test_a_fragment_is_found(kind: str, text: str):
    assert fault(Docstring(kind=kind, name="made_up", text=text))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("module", "Writes a bundle from a checkpoint."),
        ("class", "Holds what a demo made: the bundle and the picture."),
        ("function", "Return the end of a bin.\n\nArgs:\n    index: the number of the bin"),
        ("attribute", "The bits of the exponent in a float32."),
        ("attribute", "True if a plan is there."),
    ],
)
def test_a_sentence_passes(kind: str, text: str):
    assert fault(Docstring(kind=kind, name="made_up", text=text)) == ""


def test_every_kind_of_docstring_is_seen():
    source = (
        '"""M."""\nLIMIT = 1\n"""L."""\nclass Thing:\n    """T."""\n    size: int = 1\n    """S."""\n'
        '    @property\n    def end(self):\n        """E."""\n    async def run(self):\n        """R."""\n'
        '        def inner():\n            """I."""\n'
    )
    assert {(one.kind, one.name, one.text) for one in docstrings(source)} == {
        ("module", "", "M."),
        ("attribute", "LIMIT", "L."),
        ("class", "Thing", "T."),
        ("attribute", "size", "S."),
        ("attribute", "end", "E."),
        ("function", "run", "R."),
        ("function", "inner", "I."),
    }
