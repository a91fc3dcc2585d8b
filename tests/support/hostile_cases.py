"""Bundles as a hostile author could make them, each from a seed: what is changed is listed in the manifest as it is."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from relisted import relist, relist_weights, write_anew

from kontext_trt.engine.bundle.bundle import MANIFEST
from kontext_trt.engine.components import COMPONENTS


@dataclass(frozen=True)
class Case:
    """A bundle to damage, the dice, a folder that nobody may touch, and the components that were changed."""

    bundle: Path
    dice: random.Random
    forbidden: Path
    changed: set[str] = field(default_factory=set)

    def component(self) -> str:
        self.changed.add(name := self.dice.choice(sorted(COMPONENTS)))
        return name

    def odd(self) -> Any:
        """A value that is not what a field asks for, or barely."""
        d = self.dice
        return d.choice(
            [
                None, True, 0, -1, 1, 3, d.randrange(1 << 20), 1 << 31, (1 << 63) - 1, 1 << 64, 10**40, -(10**40),
                0.5, -0.0, 1e308, 1e-308, "", "x", "0", "a" * d.randrange(1, 100_000), "\x1b[2J\x07", "\u202egnp.",
                "../" * d.randrange(1, 9) + "x", str(self.forbidden / "secret"), ".", "a\0b", [], {}, [[]], {"": None},
                _nested(d.randrange(2, 3000)), [0] * d.randrange(1, 10_000), "\ud800",
            ]
        )  # fmt: skip


def _nested(depth: int) -> str:
    """Marked, as json.dumps cannot nest so deep."""
    return f"<nested {depth}>"


def dumped(value: Any) -> bytes:
    text = json.dumps(value)
    while (start := text.find('"<nested ')) >= 0:
        end = text.index('>"', start)
        depth = int(text[start + 9 : end])
        text = text[:start] + "[" * depth + "]" * depth + text[end + 2 :]
    return text.encode()


def _spots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a document, as a container and a key in it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [spot for key, inner in pairs for spot in ((value, key), *_spots(inner))]


def change_json(case: Case, data: bytes) -> bytes:
    """Values replaced, taken away or given twice."""
    document = json.loads(data)
    for _ in range(case.dice.choice([1, 1, 1, 2, 5])):
        spots = _spots(document)
        container, key = case.dice.choice(spots)
        how = case.dice.random()
        if how < 0.7:
            container[key] = case.odd()
        elif how < 0.85:
            del container[key]
        elif isinstance(container, dict):
            container[f"{key}{case.dice.choice(['', 's', '.', ' '])}"] = case.odd()
        else:
            container.append(container[key])
    return dumped(document)


def change_bytes(case: Case, data: bytes) -> bytes:
    """Bits turned, a piece lost, or a piece put in."""
    d, changed = case.dice, bytearray(data)
    how = d.random()
    if how < 0.6:
        for _ in range(d.choice([1, 1, 2, 8, 64])):
            changed[d.randrange(len(changed))] ^= 1 << d.randrange(8)
    elif how < 0.8:
        start = d.randrange(len(changed))
        del changed[start : start + d.randrange(1, 4096)]
    else:
        start = d.randrange(len(changed))
        changed[start:start] = d.randbytes(d.randrange(1, 256))
    return bytes(changed)


def manifest_bytes(case: Case) -> None:
    file = case.bundle / MANIFEST
    write_anew(file, change_bytes(case, file.read_bytes()))


def manifest_values(case: Case) -> None:
    file = case.bundle / MANIFEST
    write_anew(file, change_json(case, file.read_bytes()))


def manifest_too_long(case: Case) -> None:
    file = case.bundle / MANIFEST
    write_anew(file, file.read_bytes() + b" " * case.dice.randrange(1 << 22, 1 << 24))


def precision(case: Case) -> None:
    """What is bound is not what the graph reads."""
    manifest = json.loads((case.bundle / MANIFEST).read_text())
    for name in case.dice.sample(sorted(COMPONENTS), case.dice.randrange(1, 7)):
        case.changed.add(name)
        manifest["graphs"][name]["precision"] = case.dice.choice(["fp16", "bf16", "fp32"])
    write_anew(case.bundle / MANIFEST, json.dumps(manifest).encode())


def dims(case: Case) -> None:
    manifest = json.loads((case.bundle / MANIFEST).read_text())
    values = manifest["model"]["dims"]
    name = case.dice.choice(sorted(values))
    case.changed.update(case.dice.sample(sorted(COMPONENTS), 2))
    values[name] = max(1, values[name] + case.dice.choice([-1, 1, 64]))
    write_anew(case.bundle / MANIFEST, json.dumps(manifest).encode())


def graph_bytes(case: Case) -> None:
    place = f"graphs/{case.component()}.onnx"
    relist(case.bundle, place, change_bytes(case, (case.bundle / place).read_bytes()))


def graph_places(case: Case) -> None:
    """Weights that lie elsewhere: outside, beyond a file's end, nowhere."""
    place, d = f"graphs/{case.component()}.onnx", case.dice
    model = onnx.load(case.bundle / place, load_external_data=False)
    outside = [tensor for tensor in model.graph.initializer if tensor.external_data]
    tensor = d.choice(outside)
    entry = d.choice(tensor.external_data)
    secret = case.forbidden / "secret"
    (case.bundle / "graphs/weights/linked").symlink_to(secret)
    os.mkfifo(case.bundle / "graphs/weights/pipe")
    up = "../" * len(case.bundle.parts)
    places = [
        str(secret),
        up + str(secret)[1:],
        "../manifest.json",
        "weights/linked",
        "weights/pipe",
        "",
        ".",
        "weights",
    ]
    how = d.random()
    if how < 0.5:
        next(one for one in tensor.external_data if one.key == "location").value = d.choice(places)
    elif how < 0.8:
        entry.value = d.choice(["", "-1", "0", "1", str(1 << 62), str(10**30), "0x10", "1e3", " 7", "\u0661"])
    elif how < 0.9:
        tensor.external_data.remove(entry)
    else:
        tensor.external_data.add(key=d.choice(["location", "offset", "checksum", "basepath"]), value=str(secret))
    relist(case.bundle, place, model.SerializeToString())


def graph_constants(case: Case) -> None:
    """A tensor of a node, a subgraph or a function that lies outside."""
    place, secret = f"graphs/{case.component()}.onnx", case.forbidden / "secret"
    model = onnx.load(case.bundle / place, load_external_data=False)
    tensor = onnx.TensorProto(name="outside", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", str(secret)), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    node = onnx.helper.make_node("Constant", [], ["outside"], value=tensor)
    how = case.dice.randrange(3)
    if how == 0:
        model.graph.node.insert(0, node)
    elif how == 1:
        inner = onnx.helper.make_graph([node], "inner", [], [], [tensor])
        model.graph.node.insert(0, onnx.helper.make_node("If", [], ["x"], then_branch=inner, else_branch=inner))
    else:
        opset = [onnx.helper.make_opsetid("", 23)]
        model.functions.append(onnx.helper.make_function("d", "f", [], ["outside"], [node], opset))
    relist(case.bundle, place, model.SerializeToString())


def tokenizer(case: Case) -> None:
    place = f"tokenizers/{case.dice.choice(['clip', 't5'])}.json"
    change = case.dice.choice([change_json, change_json, change_bytes])
    relist(case.bundle, place, change(case, (case.bundle / place).read_bytes()))


def networks(case: Case) -> None:
    change = case.dice.choice([change_json, change_bytes])
    relist(case.bundle, "networks.json", change(case, (case.bundle / "networks.json").read_bytes()))


def weights_header(case: Case) -> None:
    file = case.dice.choice(sorted((case.bundle / "graphs/weights").glob("*.safetensors")))
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    change = case.dice.choice([change_json, change_bytes])
    header = change(case, data[8 : 8 + length])
    prefix = struct.pack("<Q", case.dice.choice([len(header)] * 6 + [0, 1, len(header) + 9, (1 << 64) - 1]))
    write_anew(file, prefix + header + data[8 + length :])
    relist_weights(case.bundle, f"graphs/weights/{file.name}")


def linked(case: Case) -> None:
    """A file or a folder is a link out of the bundle, or a pipe."""
    d, folder = case.dice, case.forbidden / "folder"
    folders = [
        "plans",
        "plans/clip",
        "plans/.locks",
        "plans/logs",
        "caches",
        "caches/timing",
        "reports",
        "graphs/weights",
    ]
    files = [
        MANIFEST,
        "graphs/clip.onnx",
        "tokenizers/t5.json",
        "networks.json",
        "graphs/weights/clip.model.safetensors",
    ]
    files += [f"plans/clip/{'0' * 32}{suffix}" for suffix in (".plan", ".json", ".sig")]
    files += [f"plans/logs/clip.{'0' * 32}.retry1.log", "plans/clip", f"plans/t5/{'1' * 32}.plan"]
    files += [f"plans/.locks/{'0' * 32}.lock", f"plans/logs/clip.{'0' * 32}.log", "caches/timing/some.cache"]
    for place in d.sample(folders, d.randrange(3)):
        _replace(case.bundle / place, lambda path: path.symlink_to(folder))
    for place in d.sample(files, d.randrange(1, 3)):
        target = d.choice([case.forbidden / "secret", case.forbidden / "gone", Path("/dev/zero")])
        make = d.choice([lambda path, to=target: path.symlink_to(to), lambda path: os.mkfifo(path)])
        _replace(case.bundle / place, make)


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    if any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in path.parents):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file() or path.is_fifo():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    make(path)


def plans(case: Case) -> None:
    """Plans, manifests, signatures, locks and leftovers with other values and names."""
    d = case.dice
    stored = sorted((case.bundle / "plans").rglob("*.json"))
    for file in d.sample(stored, min(len(stored), 3)):
        change = d.choice([change_json, change_bytes])
        write_anew(file, change(case, file.read_bytes()))
        if d.random() < 0.3:
            write_anew(file.with_suffix(".sig"), d.randbytes(d.randrange(100)))
        if d.random() < 0.3:
            write_anew(file.with_suffix(".plan"), d.randbytes(d.randrange(100)))
    key = d.choice(["0" * 32, "../" * 3, "x", ".", "ü" * 32])[: d.randrange(1, 33)].replace("/", "")
    left = case.bundle / "plans/clip" / f".{key}.left"
    left.mkdir(parents=True, exist_ok=True)
    (left / d.choice(["plan", "other"])).symlink_to(case.forbidden / "secret")
    (case.bundle / "plans/.locks").mkdir(exist_ok=True)
    (case.bundle / "plans/.locks" / f"{key}.lock").touch()


def folders(case: Case) -> None:
    """Folders in the place of files."""
    names = [MANIFEST, "graphs/t5.onnx", "networks.json", "plans/logs", "caches/timing/some.cache"]
    names += [f"plans/clip/{'0' * 32}{suffix}" for suffix in (".plan", ".json", ".sig")]
    names += [f"plans/.locks/{'0' * 32}.lock"]
    for place in case.dice.sample(names, case.dice.randrange(1, 4)):
        _replace(case.bundle / place, lambda path: path.mkdir())


def bombs(case: Case) -> None:
    """Small files that would take much memory or time: messages without end, shapes without end, lists of one file."""
    d, place = case.dice, f"graphs/{case.component()}.onnx"
    data, how = (case.bundle / place).read_bytes(), case.dice.randrange(3)
    if how == 0:
        nodes = b"\x0a\x00" * d.randrange(100_000, 4_000_000)
        size, length = len(nodes), b""
        while size:
            length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
            size >>= 7
        relist(case.bundle, place, data + b"\x3a" + length + nodes)
    elif how == 1:
        model = onnx.load_model_from_string(data)
        model.graph.initializer[0].dims.extend([1 << 62] * d.randrange(1, 60_000))
        relist(case.bundle, place, model.SerializeToString())
    else:
        manifest = json.loads((case.bundle / MANIFEST).read_text())
        weights = manifest["graphs"][d.choice(sorted(COMPONENTS))]["weights"]
        weights += weights * d.randrange(1, 90_000)
        write_anew(case.bundle / MANIFEST, json.dumps(manifest, separators=(",", ":")).encode())


def sparse(case: Case) -> None:
    """A file of many gigabytes that takes no room on disk."""
    place = case.dice.choice(["tokenizers/clip.json", "graphs/t5.onnx", "networks.json", MANIFEST])
    file, size = case.bundle / place, case.dice.choice([300 << 20, 5 << 30, 1 << 40])
    manifest = json.loads((case.bundle / MANIFEST).read_text())
    for record in manifest["files"]:
        if record["path"] == place:
            record["size_bytes"] = size
    write_anew(case.bundle / MANIFEST, json.dumps(manifest).encode())
    write_anew(file, file.read_bytes())
    os.truncate(file, size)


KINDS: tuple[Callable[[Case], None], ...] = (
    manifest_bytes, manifest_values, manifest_values, manifest_values, manifest_too_long, precision, dims, graph_bytes,
    graph_places, graph_places, graph_constants, tokenizer, tokenizer, networks, weights_header, linked, linked, plans,
    sparse, folders, bombs,
)  # fmt: skip
