"""A tiny random FLUX.1 Kontext checkpoint, as diffusers itself saves one: for the demo and for tests.

It has every layer of the real one and none of its knowledge: its pictures are patterns, not edits.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers import decoders as token_decoders
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from .checkpoint.open import SIZES_FILE

TINY_SIZES = ((96, 192), (112, 144), (128, 128), (144, 112), (192, 96))


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's kind of tokenizer over single bytes: 512 symbols and the two markers."""
    symbols = list(bytes_to_unicode().values())
    vocabulary = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], model_max_length=77)


def t5_tokenizer() -> T5TokenizerFast:
    """T5's kind of tokenizer over single characters of printable ASCII."""
    characters = [chr(code) for code in range(33, 127)]
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((character, -4.0) for character in characters),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = token_decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_ids=0,
        model_max_length=512,
    )


def tiny_pipeline(seed: int = 0, *, head_width: int = 32) -> FluxKontextPipeline:
    """diffusers' own pipeline of a tiny model: 2 double and 2 single blocks of 2 heads, a VAE of 32 channels."""
    torch.manual_seed(seed)
    clip_tokens, t5_tokens = clip_tokenizer(), t5_tokenizer()
    text_width, pooled_width = 64, 48
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=head_width,
        num_attention_heads=2,
        joint_attention_dim=text_width,
        pooled_projection_dim=pooled_width,
        guidance_embeds=True,
        axes_dims_rope=(head_width // 8, 7 * head_width // 16, 7 * head_width // 16),
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=32,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    end = clip_tokens.convert_tokens_to_ids("<|endoftext|>")
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokens),
            hidden_size=pooled_width,
            intermediate_size=2 * pooled_width,
            num_hidden_layers=2,
            num_attention_heads=1,
            max_position_embeddings=77,
            bos_token_id=end - 1,
            eos_token_id=2,
            pad_token_id=end,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokens),
            d_model=text_width,
            d_kv=32,
            d_ff=128,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            shift=3.0,
            base_shift=0.5,
            max_shift=1.15,
            base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tokens,
        text_encoder_2=t5,
        tokenizer_2=t5_tokens,
        transformer=transformer,
    )


def write_tiny_checkpoint(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
    """Save the tiny pipeline as a diffusers folder, with small sizes of its own."""
    pipeline = tiny_pipeline(seed)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        torch.nn.Module.to(part, dtype=dtype)  # diffusers' own `to` warns of layers to keep in float32; there are none
    pipeline.save_pretrained(folder)
    (folder / SIZES_FILE).write_text(json.dumps(TINY_SIZES))
