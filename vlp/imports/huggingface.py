"""Folders of transformers: CLIPModel and ViTMAEForPreTraining, as `save_pretrained` writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlp.core.plain import from_plain
from vlp.imports.library import LIBRARIES, Library, normalization_of, read_json
from vlp.run import RunConfig

SETTINGS, PROCESSORS = "config.json", ("preprocessor_config.json", "processor_config.json")
CLIP_TOKENS = 49_408
DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
"""Of transformers, which leaves out what is so."""


@LIBRARIES.register
class HuggingFace(Library):
    """That of transformers, which need not be installed."""

    name = "huggingface"

    def recognizes(self, folder: Path) -> bool:
        return "model_type" in read_json(folder / SETTINGS)

    def run_of(self, folder: Path) -> RunConfig:
        content = read_json(folder / SETTINGS)
        makers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"clip": _clip, "vit_mae": _mae}
        kind = content["model_type"]
        if kind not in makers:
            raise ValueError(f"{folder / SETTINGS}: model_type is {kind}; clip and vit_mae can be loaded")
        processor = next((found for name in PROCESSORS if (found := read_json(folder / name))), {})
        processor = processor.get("image_processor", processor)
        normalization = normalization_of(processor.get("image_mean"), processor.get("image_std"))
        named = {"name": folder.resolve().name, "data": {"normalization": normalization}}
        return from_plain(RunConfig, named | makers[kind](content))


def _clip(content: dict[str, Any]) -> dict[str, Any]:
    vision = {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768} | content[
        "vision_config"
    ]
    text = {"num_hidden_layers": 12, "num_attention_heads": 8, "hidden_size": 512} | content["text_config"]
    if text.get("vocab_size", CLIP_TOKENS) != CLIP_TOKENS:
        raise ValueError(
            f"text_config.vocab_size is {text['vocab_size']}, and CLIP's tokenizer has {CLIP_TOKENS}"
        )
    return {
        "image_encoder": {
            **_vit(vision | {"intermediate_size": vision.get("intermediate_size", 3072)}, patch_size=32),
            "activation": vision.get("hidden_act", "quick_gelu"),
        },
        "tokenizer": {"name": "clip_bpe", "context_length": text.get("max_position_embeddings", 77)},
        "objective": {
            "name": "contrastive",
            "embed_dim": content.get("projection_dim", 512),
            "text_encoder": {
                "width": text["hidden_size"],
                "depth": text["num_hidden_layers"],
                "num_heads": text["num_attention_heads"],
                "activation": text.get("hidden_act", "quick_gelu"),
            },
        },
    }


def _mae(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "image_encoder": {
            **_vit(DEFAULTS | content, patch_size=16),
            "activation": content.get("hidden_act", "gelu"),
            "positions": "sincos",
            "pre_norm": False,
            "norm_eps": content.get("layer_norm_eps", 1e-12),
        },
        "mask": {"name": "random", "mask_ratio": content.get("mask_ratio", 0.75)},
        "objective": {
            "name": "mae",
            "decoder_width": content.get("decoder_hidden_size", 512),
            "decoder_depth": content.get("decoder_num_hidden_layers", 8),
            "decoder_heads": content.get("decoder_num_attention_heads", 16),
            "norm_pix_loss": content.get("norm_pix_loss", False),
        },
    }


def _vit(sizes: dict[str, Any], *, patch_size: int) -> dict[str, Any]:
    """Settings of a ViT; patch_size is transformers' default."""
    if sizes["intermediate_size"] != 4 * sizes["hidden_size"]:
        raise ValueError(
            f"intermediate_size is {sizes['intermediate_size']}, and here it is 4 times the width, "
            f"{4 * sizes['hidden_size']}"
        )
    return {
        "name": "vit",
        "image_size": sizes.get("image_size", 224),
        "patch_size": sizes.get("patch_size", patch_size),
        "width": sizes["hidden_size"],
        "depth": sizes["num_hidden_layers"],
        "num_heads": sizes["num_attention_heads"],
    }
