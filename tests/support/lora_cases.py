"""The cases of `lora_files`: one or more for each family, and one for each fault of reference readers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from lora_files import (
    DOUBLE,
    MLP,
    SINGLE,
    Array,
    Case,
    D,
    Wanted,
    bf16,
    halves,
    low_rank,
    number,
    of_bf16,
    pair,
    peft_metadata,
    plus,
    random,
    transformer,
    wide,
)

KOHYA = {"a": "lora_down", "b": "lora_up"}
TO_Q, FF, PROJ = f"{DOUBLE}.0.attn.to_q", f"{DOUBLE}.1.ff.net.0.proj", f"{SINGLE}.1.proj_out"


def diffusers_cases() -> Iterator[Case]:
    q, ff, proj = (
        pair(f"transformer.{n}", o, r, i) for n, o, r, i in ((TO_Q, D, 4, D), (FF, MLP, 2, D), (PROJ, D, 8, D + MLP))
    )
    tensors = {**q, **ff, **proj}
    names = (f"{TO_Q}.weight", f"{FF}.weight", f"{PROJ}.weight")

    def case(name: str, scales: tuple[float, ...], metadata: Any = None, **more: Any) -> Case:
        wanted = {n: low_rank(*halves(t), s) for n, t, s in zip(names, (q, ff, proj), scales, strict=True)}
        wanted |= more.pop("wanted", {})
        return Case(
            name=name,
            family="diffusers",
            tensors={**tensors, **more.pop("tensors", {})},
            metadata=metadata,
            wanted=transformer(wanted),
        )

    patterns = {"rank_pattern": {"to_q": 4, "ff.net.0.proj": 2}}
    yield case("diffusers, no metadata, mixed ranks", (1, 1, 1))
    yield case("PEFT metadata", (4, 8, 2), peft_metadata(r=8, lora_alpha=16, **patterns))
    rs = tuple(16 / math.sqrt(rank) for rank in (4, 2, 8))
    yield case("PEFT rsLoRA", rs, peft_metadata(r=8, lora_alpha=16, use_rslora=True, **patterns))
    alphas = {"alpha_pattern": {f"{SINGLE}.1.proj_out": 2, r"transformer_blocks\.\d+\.attn\.to_q": 12}}
    yield case("PEFT alpha_pattern", (3, 8, 0.25), peft_metadata(r=8, lora_alpha=16, **patterns, **alphas))
    bias = random("bias", D)
    yield case(
        "PEFT lora_B.bias",
        (4, 8, 2),
        peft_metadata(r=8, lora_alpha=16, lora_bias=True, **patterns),
        tensors={f"transformer.{TO_Q}.lora_B.bias": bias},
        wanted={f"{TO_Q}.bias": plus(bias, 4)},
    )
    magnitude = np.abs(random("magnitude", D)) + 1

    def dora(weight: Array, user: float) -> Array:
        down, up = halves(q)
        changed = weight + user * 4 * (wide(up) @ wide(down))
        return wide(magnitude)[:, None] * changed / np.linalg.norm(changed, axis=1, keepdims=True)

    for suffix in ("", ".weight"):
        yield case(
            f"PEFT DoRA{suffix}",
            (4, 8, 2),
            peft_metadata(r=8, lora_alpha=16, use_dora=True, **patterns),
            tensors={f"transformer.{TO_Q}.lora_magnitude_vector{suffix}": magnitude},
            wanted={f"{TO_Q}.weight": dora},
        )
    yield case(
        "alpha beside, of some layers",
        (0.25, 1, 1),
        tensors={f"transformer.{TO_Q}.alpha": number(1)},
    )
    down = pair(f"transformer.{TO_Q}", D, 4, **KOHYA)
    yield Case(
        name="lora_down under diffusers' names with alpha",
        family="diffusers",
        tensors={**down, f"transformer.{TO_Q}.alpha": number(1)},
        wanted=transformer({f"{TO_Q}.weight": low_rank(*halves(down), 0.25)}),
    )
    old = pair(f"transformer.{TO_Q}", D, 4, a="lora.down", b="lora.up")
    yield Case(
        name="diffusers before PEFT",
        family="diffusers",
        tensors=old,
        wanted=transformer({f"{TO_Q}.weight": low_rank(*halves(old))}),
    )
    plain = pair(TO_Q, D, 4)
    yield Case(
        name="diffusers without prefix",
        family="diffusers without prefix",
        tensors=plain,
        wanted=transformer({f"{TO_Q}.weight": low_rank(*halves(plain))}),
    )
    out = pair("transformer.norm_out.linear", 2 * D, 4)
    a, b = halves(out)
    yield Case(
        name="diffusers' last norm is two tensors here",
        family="diffusers",
        tensors=out,
        wanted=transformer({"norm_out.scale.weight": low_rank(a, b[:D]), "norm_out.shift.weight": low_rank(a, b[D:])}),
    )
    clip = pair("text_encoder.text_model.encoder.layers.1.self_attn.q_proj", D, 4)
    t5 = pair("text_encoder_2.encoder.block.1.layer.1.DenseReluDense.wi_0", 128, 4)
    yield Case(
        name="diffusers' text encoders",
        family="diffusers",
        tensors={**clip, **t5},
        wanted={
            ("clip", "encoder.layers.1.self_attn.q_proj.weight"): low_rank(*halves(clip)),
            ("t5", "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"): low_rank(*halves(t5)),
        },
    )


def thirds(block: str, names: tuple[str, ...], down: Array, up: Array, scale: float = 1.0) -> dict[str, Wanted]:
    """What rows of a fused layer are: each layer's rows of the up, the last has the rest."""
    ends = [D, 2 * D, 3 * D, len(up)]
    return {
        f"{block}.{name}.weight": low_rank(down, up[begin:end], scale)
        for name, begin, end in zip(names, (0, *ends), ends, strict=False)
    }


QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")


def kohya_cases() -> Iterator[Case]:
    qkv = pair("lora_unet_double_blocks_0_img_attn_qkv", 3 * D, 4, **KOHYA)
    linear1 = pair("lora_unet_single_blocks_1_linear1", 3 * D + MLP, 4, **KOHYA)
    linear2 = pair("lora_unet_single_blocks_1_linear2", D, 4, D + MLP, **KOHYA)
    alphas = {
        "lora_unet_double_blocks_0_img_attn_qkv.alpha": number(1),
        "lora_unet_single_blocks_1_linear2.alpha": number(0),  # sd-scripts: 0 stands for the rank
    }
    yield Case(
        name="kohya, fused qkv",
        family="kohya",
        tensors={**qkv, **linear1, **linear2, **alphas},
        wanted=transformer(
            {
                **thirds(f"{DOUBLE}.0", QKV, *halves(qkv), 0.25),
                **thirds(f"{SINGLE}.1", (*QKV, "proj_mlp"), *halves(linear1)),
                f"{SINGLE}.1.proj_out.weight": low_rank(*halves(linear2)),
            }
        ),
    )
    rest = {
        "img_in": ("x_embedder", D, 64),
        "txt_in": ("context_embedder", D, 64),
        "time_in_in_layer": ("time_text_embed.timestep_embedder.linear_1", D, 256),
        "time_in_out_layer": ("time_text_embed.timestep_embedder.linear_2", D, D),
        "vector_in_in_layer": ("time_text_embed.text_embedder.linear_1", D, 64),
        "vector_in_out_layer": ("time_text_embed.text_embedder.linear_2", D, D),
        "guidance_in_in_layer": ("time_text_embed.guidance_embedder.linear_1", D, 256),
        "guidance_in_out_layer": ("time_text_embed.guidance_embedder.linear_2", D, D),
        "final_layer_linear": ("proj_out", 64, D),
        "double_blocks_1_img_mod_lin": (f"{DOUBLE}.1.norm1.linear", 6 * D, D),
        "double_blocks_1_txt_mod_lin": (f"{DOUBLE}.1.norm1_context.linear", 6 * D, D),
        "double_blocks_1_txt_mlp_2": (f"{DOUBLE}.1.ff_context.net.2", D, MLP),
        "single_blocks_0_modulation_lin": (f"{SINGLE}.0.norm.linear", 3 * D, D),
    }
    pairs = {name: pair(f"lora_unet_{name}", out, 2, inner, **KOHYA) for name, (_, out, inner) in rest.items()}
    final = pair("lora_unet_final_layer_adaLN_modulation_1", 2 * D, 2, **KOHYA)
    a, b = halves(final)
    yield Case(
        name="kohya, layers outside the blocks",  # which diffusers loses, and the final layer's alpha
        family="kohya",
        tensors={
            **{name: values for one in pairs.values() for name, values in one.items()},
            **final,
            **{f"lora_unet_{name}.alpha": number(1) for name in (*rest, "final_layer_adaLN_modulation_1")},
        },
        wanted=transformer(
            {
                **{f"{rest[name][0]}.weight": low_rank(*halves(one), 0.5) for name, one in pairs.items()},
                "norm_out.shift.weight": low_rank(a, b[:D], 0.5),  # BFL has the shift first, diffusers the scale
                "norm_out.scale.weight": low_rank(a, b[D:], 0.5),
            }
        ),
    )
    downs, ups = [random(f"split down {i}", 2, D) for i in range(3)], [random(f"split up {i}", D, 2) for i in range(3)]
    sparse = np.zeros((3 * D, 6), np.float32)
    for i, up in enumerate(ups):
        sparse[i * D : (i + 1) * D, 2 * i : 2 * i + 2] = up
    stem = "lora_unet_double_blocks_1_txt_attn_qkv"
    yield Case(
        name="kohya, split_qkv",
        family="kohya",
        tensors={
            f"{stem}.lora_down.weight": np.concatenate(downs),
            f"{stem}.lora_up.weight": sparse,
            f"{stem}.alpha": number(3),
        },
        wanted=transformer(
            {
                f"{DOUBLE}.1.{name}.weight": low_rank(down, up, 0.5)
                for name, down, up in zip(ADDED, downs, ups, strict=True)
            }
        ),
    )
    clip = pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", 128, 4, **KOHYA)
    for prefix in ("lora_te2", "lora_te3"):
        t5 = pair(f"{prefix}_encoder_block_0_layer_0_SelfAttention_k", D, 4, **KOHYA)
        yield Case(
            name=f"kohya, CLIP and T5 as {prefix}",
            family="kohya",
            tensors={**clip, **t5, "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": number(2)},
            wanted={
                ("clip", "encoder.layers.0.mlp.fc1.weight"): low_rank(*halves(clip), 0.5),
                ("t5", "encoder.block.0.layer.0.SelfAttention.k.weight"): low_rank(*halves(t5)),
            },
        )


def one_trainer_cases() -> Iterator[Case]:
    layers = {
        f"{DOUBLE}.0.ff.net.0.proj": (MLP, D),
        f"{DOUBLE}.0.ff.net.2": (D, MLP),
        f"{DOUBLE}.0.ff_context.net.2": (D, MLP),
        f"{DOUBLE}.0.norm1.linear": (6 * D, D),
        f"{SINGLE}.0.attn.to_q": (D, D),
        f"{SINGLE}.0.norm.linear": (3 * D, D),
        f"{SINGLE}.0.proj_mlp": (MLP, D),
        f"{SINGLE}.0.proj_out": (D, D + MLP),
    }
    pairs = {
        name: pair(f"lora_transformer_{name.replace('.', '_')}", o, 4, i, **KOHYA) for name, (o, i) in layers.items()
    }
    yield Case(
        name="OneTrainer legacy",  # of which diffusers' reader overwrites one with the other
        family="OneTrainer legacy",
        tensors={
            **{name: values for one in pairs.values() for name, values in one.items()},
            **{f"lora_transformer_{name.replace('.', '_')}.alpha": number(2) for name in layers},
        },
        wanted=transformer({f"{name}.weight": low_rank(*halves(one), 0.5) for name, one in pairs.items()}),
    )
    stem, scales = f"lora_transformer_{TO_Q.replace('.', '_')}", np.abs(random("dora in", 1, D)) + 1
    q = pair(stem, D, 4, **KOHYA)

    def dora(weight: Array, user: float) -> Array:
        down, up = halves(q)
        changed = weight + wide(up) @ wide(down)
        changed *= wide(scales) / np.linalg.norm(changed, axis=0, keepdims=True)
        return weight + user * (changed - weight)

    yield Case(
        name="OneTrainer DoRA per input",
        family="OneTrainer legacy",
        tensors={**q, f"{stem}.dora_scale": scales},
        wanted=transformer({f"{TO_Q}.weight": dora}),
    )
    comfy, clip = (
        pair("diffusion_model.double_blocks.0.txt_attn.qkv", 3 * D, 4),
        pair("text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.v_proj", D, 4),
    )
    yield Case(
        name="OneTrainer for ComfyUI",
        family="ComfyUI",
        tensors={**comfy, **clip, "diffusion_model.double_blocks.0.txt_attn.qkv.alpha": number(2)},
        wanted={
            **transformer(thirds(f"{DOUBLE}.0", ADDED, *halves(comfy), 0.5)),
            ("clip", "encoder.layers.0.self_attn.v_proj.weight"): low_rank(*halves(clip)),
        },
    )
    original = pair("double_blocks.0.txt_attn.qkv", 3 * D, 4)
    yield Case(
        name="BFL's own names",
        family="BFL names",
        tensors={**original, "double_blocks.0.txt_attn.qkv.alpha": number(2)},
        wanted=transformer(thirds(f"{DOUBLE}.0", ADDED, *halves(original), 0.5)),
    )


def bfl_cases() -> Iterator[Case]:
    qkv = pair("base_model.model.double_blocks.0.img_attn.qkv", 3 * D, 4)
    last = pair("base_model.model.final_layer.linear", 64, 4)
    yield Case(
        name="fal, of one block alone",  # which ends in a KeyError in diffusers
        family="PEFT adapter",
        tensors={**qkv, **last},
        wanted=transformer({**thirds(f"{DOUBLE}.0", QKV, *halves(qkv)), "proj_out.weight": low_rank(*halves(last))}),
    )
    control, norm, bias = pair("double_blocks.0.img_attn.qkv", 3 * D, 4), random("norm", 32), random("b", 3 * D)
    yield Case(
        name="BFL control, but for the input",
        family="BFL control",
        tensors={
            **control,
            "double_blocks.0.img_attn.qkv.lora_B.bias": bias,
            "double_blocks.0.img_attn.norm.query_norm.scale": norm,
        },
        wanted=transformer(
            {
                **thirds(f"{DOUBLE}.0", QKV, *halves(control)),
                **{f"{DOUBLE}.0.{name}.bias": plus(bias[i * D : i * D + D]) for i, name in enumerate(QKV)},
                f"{DOUBLE}.0.attn.norm_q.weight": lambda weight, user: wide(norm),
            }
        ),
    )
    names = {"a": "down", "b": "up"}
    qkv1, qkv2 = (pair(f"double_blocks.0.processor.qkv_lora{i}", 3 * D, 4, **names) for i in (1, 2))
    proj1, proj2 = (pair(f"double_blocks.0.processor.proj_lora{i}", D, 4, **names) for i in (1, 2))
    single = pair("single_blocks.1.processor.qkv_lora", 3 * D, 4, **names)
    proj = pair("single_blocks.1.processor.proj_lora", D, 4, D + MLP, **names)
    yield Case(
        name="XLabs",
        family="XLabs",
        tensors={**qkv1, **qkv2, **proj1, **proj2, **single, **proj},
        wanted=transformer(
            {
                **thirds(f"{DOUBLE}.0", QKV, *halves(qkv1)),
                **thirds(f"{DOUBLE}.0", ADDED, *halves(qkv2)),
                f"{DOUBLE}.0.attn.to_out.0.weight": low_rank(*halves(proj1)),
                f"{DOUBLE}.0.attn.to_add_out.weight": low_rank(*halves(proj2)),
                **thirds(f"{SINGLE}.1", QKV, *halves(single)),
                f"{SINGLE}.1.proj_out.weight": low_rank(*halves(proj)),
            }
        ),
    )


def product_cases() -> Iterator[Case]:
    w1, w2 = random("w1", 4, 4), random("w2", D // 4, D // 4)
    w1a, w1b, w2a, w2b = random("w1a", 4, 2), random("w1b", 2, 4), random("w2a", D // 4, 2), random("w2b", 2, D // 4)
    small, large = wide(w1a) @ wide(w1b), wide(w2a) @ wide(w2b)
    forms = {
        "whole": ({"lokr_w1": w1, "lokr_w2": w2}, np.kron(wide(w1), wide(w2))),  # its alpha means nothing
        "second decomposed": ({"lokr_w1": w1, "lokr_w2_a": w2a, "lokr_w2_b": w2b}, np.kron(wide(w1), large) * 1.5),
        "both decomposed": (
            {"lokr_w1_a": w1a, "lokr_w1_b": w1b, "lokr_w2_a": w2a, "lokr_w2_b": w2b},
            np.kron(small, large) * 1.5,
        ),
    }
    stems = {
        "ai-toolkit": f"transformer.{TO_Q}",
        "SimpleTuner and old ai-toolkit": f"lycoris_{TO_Q.replace('.', '_')}",
    }
    for trainer, stem in stems.items():
        for form, (factors, delta) in forms.items():
            yield Case(
                name=f"{trainer} LoKr, {form}",
                family="diffusers" if stem.startswith("t") else "LyCORIS",
                tensors={**{f"{stem}.{slot}": values for slot, values in factors.items()}, f"{stem}.alpha": number(3)},
                wanted=transformer({f"{TO_Q}.weight": plus(delta)}),
            )
    # of a fused layer, whose rows are not whole blocks of the larger factor
    a, b = random("fused w1", 3, 8), random("fused w2", D, D // 8)
    whole = np.kron(wide(a), wide(b))
    yield Case(
        name="ComfyUI LoKr of fused layers",
        family="ComfyUI",
        tensors={
            "diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1": a,
            "diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2": b,
        },
        wanted=transformer(
            {f"{DOUBLE}.0.{name}.weight": plus(whole[i * D : (i + 1) * D]) for i, name in enumerate(QKV)}
        ),
    )
    c, d = random("odd w1", 7, 8), random("odd w2", D, D // 8)
    whole = np.kron(wide(c), wide(d))
    yield Case(
        name="kohya LoKr of linear1",
        family="kohya",
        tensors={
            "lora_unet_single_blocks_0_linear1.lokr_w1": c,
            "lora_unet_single_blocks_0_linear1.lokr_w2": d,
        },
        wanted=transformer(
            {
                **{f"{SINGLE}.0.{name}.weight": plus(whole[i * D : (i + 1) * D]) for i, name in enumerate(QKV)},
                f"{SINGLE}.0.proj_mlp.weight": plus(whole[3 * D :]),
            }
        ),
    )
    factors = {
        f"hada_w{i}_{s}": random(f"hada {i}{s}", *((3 * D, 4) if s == "a" else (4, D))) for i in "12" for s in "ab"
    }
    loha = (wide(factors["hada_w1_a"]) @ wide(factors["hada_w1_b"])) * (
        wide(factors["hada_w2_a"]) @ wide(factors["hada_w2_b"])
    )
    for family, stem in (
        ("kohya", "lora_unet_double_blocks_0_img_attn_qkv"),
        ("ComfyUI", "diffusion_model.double_blocks.0.img_attn.qkv"),
    ):
        yield Case(
            name=f"LoHa, {family}",
            family=family,
            tensors={**{f"{stem}.{slot}": values for slot, values in factors.items()}, f"{stem}.alpha": number(2)},
            wanted=transformer(
                {f"{DOUBLE}.0.{name}.weight": plus(loha[i * D : i * D + D], 0.5) for i, name in enumerate(QKV)}
            ),
        )
    scales = np.abs(random("dora out", 3 * D, 1)) + 1
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    qkv = pair(stem, 3 * D, 4, **KOHYA)
    down, up = halves(qkv)

    def dora(i: int) -> Wanted:
        rows = slice(i * D, i * D + D)

        def wanted(weight: Array, user: float) -> Array:
            changed = weight + wide(up)[rows] @ wide(down)
            changed *= wide(scales)[rows] / np.linalg.norm(changed, axis=1, keepdims=True)
            return weight + user * (changed - weight)

        return wanted

    yield Case(
        name="LyCORIS DoRA of a fused layer",
        family="kohya",
        tensors={**qkv, f"{stem}.dora_scale": scales},
        wanted=transformer({f"{DOUBLE}.0.{name}.weight": dora(i) for i, name in enumerate(QKV)}),
    )


def difference_cases() -> Iterator[Case]:
    prefix = "diffusion_model"
    diff, diff_b = random("diff", 3 * D, D), random("diff_b", 3 * D)
    final, final_b = random("final diff", 2 * D, D), random("final diff_b", 2 * D)
    linear1_b = random("linear1 b", 3 * D + MLP)
    norm, added, set_to = random("norm diff", 32), random("added", 32), random("set", 32)
    img = pair(f"{prefix}.img_in", D, 4, 64)
    yield Case(
        name="ComfyUI .diff, .diff_b, .set_weight, .reshape_weight",  # which diffusers loses
        family="ComfyUI",
        tensors={
            f"{prefix}.double_blocks.0.img_attn.qkv.diff": diff,
            f"{prefix}.double_blocks.0.img_attn.qkv.diff_b": diff_b,
            f"{prefix}.final_layer.adaLN_modulation.1.diff": final,
            f"{prefix}.final_layer.adaLN_modulation.1.diff_b": final_b,
            f"{prefix}.single_blocks.0.linear1.diff_b": linear1_b,
            f"{prefix}.double_blocks.0.img_attn.norm.query_norm.diff": norm,
            f"{prefix}.double_blocks.0.txt_attn.norm.key_norm.set_weight": set_to,
            f"{prefix}.single_blocks.0.norm.key_norm.w_norm": added,
            **img,
            f"{prefix}.img_in.reshape_weight": np.array([D, 64], dtype=np.int64),
        },
        wanted=transformer(
            {
                **{f"{DOUBLE}.0.{name}.weight": plus(diff[i * D : i * D + D]) for i, name in enumerate(QKV)},
                **{f"{DOUBLE}.0.{name}.bias": plus(diff_b[i * D : i * D + D]) for i, name in enumerate(QKV)},
                "norm_out.shift.weight": plus(final[:D]),
                "norm_out.scale.weight": plus(final[D:]),
                "norm_out.shift.bias": plus(final_b[:D]),
                "norm_out.scale.bias": plus(final_b[D:]),
                **{f"{SINGLE}.0.{name}.bias": plus(linear1_b[i * D : i * D + D]) for i, name in enumerate(QKV)},
                f"{SINGLE}.0.proj_mlp.bias": plus(linear1_b[3 * D :]),
                f"{DOUBLE}.0.attn.norm_q.weight": plus(norm),
                f"{DOUBLE}.0.attn.norm_added_k.weight": lambda weight, user: wide(set_to),
                f"{SINGLE}.0.attn.norm_k.weight": plus(added),
                "x_embedder.weight": low_rank(*halves(img)),
            }
        ),
    )


def typed_cases() -> Iterator[Case]:
    stem = f"transformer.{TO_Q}"
    down, up = random("typed down", 4, D), random("typed up", D, 4)
    half = {"down": down.astype(np.float16), "up": up.astype(np.float16)}
    brain = {"down": bf16(down), "up": bf16(up)}
    codes = {
        key: np.random.default_rng(7).integers(0, 0x60, shape).astype(np.uint8)
        for key, shape in (("down", (4, D)), ("up", (D, 4)))
    }
    types: dict[str, tuple[dict[str, Any], dict[str, Array]]] = {
        "F16": (half, half),
        "BF16": (brain, {key: of_bf16(one) for key, one in brain.items()}),
        "F64": ({key: wide(one) for key, one in half.items()}, half),
        "FP8 E4M3": (
            {key: ("F8_E4M3", one) for key, one in codes.items()},
            {key: e4m3(one) for key, one in codes.items()},
        ),
        "FP8 E5M2": (
            {key: ("F8_E5M2", one) for key, one in codes.items()},
            {key: (one.astype("<u2") << 8).view("<f2") for key, one in codes.items()},
        ),
    }
    for name, (stored, values) in types.items():
        yield Case(
            name=f"tensors of {name}",
            family="diffusers",
            tensors={f"{stem}.lora_A.weight": stored["down"], f"{stem}.lora_B.weight": stored["up"]},
            wanted=transformer({f"{TO_Q}.weight": low_rank(values["down"], values["up"])}),
        )


def e4m3(codes: Array) -> Array:
    """OCP's FP8 E4M3, number by number."""

    def value(code: int) -> float:
        sign, exponent, fraction = -1 if code & 0x80 else 1, code >> 3 & 15, code & 7
        return sign * (fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7))

    return np.vectorize(value, otypes=[np.float64])(codes)


CASES = [
    *diffusers_cases(),
    *kohya_cases(),
    *one_trainer_cases(),
    *bfl_cases(),
    *product_cases(),
    *difference_cases(),
    *typed_cases(),
]
