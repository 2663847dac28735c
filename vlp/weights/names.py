"""The names that timm, open_clip and transformers give to weights, to ours."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Renames = Sequence[tuple[str, str]]
"""Patterns and what takes their places, one after another."""

IMAGE_ENCODER, POSITIONS = "image_encoder.", "image_encoder.positions"
CLASS_TOKEN = "image_encoder.class_token"
OPEN_CLIP: Renames = (
    (r"^text\.", ""),  # a text tower of its own module
    (r"^visual\.class_embedding$", CLASS_TOKEN),
    (r"^visual\.positional_embedding$", POSITIONS),
    (r"^visual\.conv1\.", "image_encoder.patch_embed.proj."),
    (r"^visual\.ln_pre\.", "image_encoder.norm_pre."),
    (r"^visual\.ln_post\.", "image_encoder.norm."),
    (r"^visual\.proj$", "image_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "image_encoder.blocks."),
    (r"^transformer\.resblocks\.", "text_encoder.blocks."),
    (r"^token_embedding\.", "text_encoder.token_embed."),
    (r"^positional_embedding$", "text_encoder.positions"),
    (r"^ln_final\.", "text_encoder.norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^logit_scale$", "log_logit_scale"),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
HF_CLIP: Renames = (
    (r"^vision_model\.embeddings\.class_embedding$", CLASS_TOKEN),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", POSITIONS),
    (r"^vision_model\.embeddings\.patch_embedding\.", "image_encoder.patch_embed.proj."),
    (r"^vision_model\.pre_layrnorm\.", "image_encoder.norm_pre."),
    (r"^vision_model\.post_layernorm\.", "image_encoder.norm."),
    (r"^visual_projection\.", "image_projection."),
    (r"^vision_model\.encoder\.layers\.", "image_encoder.blocks."),
    (r"^text_model\.encoder\.layers\.", "text_encoder.blocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "text_encoder.token_embed."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text_encoder.positions"),
    (r"^text_model\.final_layer_norm\.", "text_encoder.norm."),
    (r"^logit_scale$", "log_logit_scale"),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.layer_norm([12])\.", r".norm\1."),
)


def our_names(weights: Weights, *, format: str) -> dict[str, Tensor]:
    """The same weights by the names, and in the shapes, that our models have."""
    converters: dict[str, Callable[[Weights], dict[str, Tensor]]] = {
        "vlp": dict,
        "timm": _from_timm,
        "open_clip": _from_open_clip,
        "hf_clip": _from_hf_clip,
    }
    return converters[format](weights)


def _from_timm(weights: Weights) -> dict[str, Tensor]:
    """A ViT; its classifier, if it has one, is not part of an encoder."""
    renamed = {"cls_token": "class_token", "pos_embed": "positions"}
    return {
        IMAGE_ENCODER + renamed.get(name, name): x
        for name, x in weights.items()
        if not name.startswith("head.")
    }


def _from_open_clip(weights: Weights) -> dict[str, Tensor]:
    """CLIP with two transformers; its projections multiply from the right."""
    ours = _of_one_image(_rename(weights, OPEN_CLIP))
    projections = {"image_projection.weight", "text_projection.weight"}
    return {name: x.T if name in projections else x for name, x in ours.items()}


def _from_hf_clip(weights: Weights) -> dict[str, Tensor]:
    """CLIP of transformers, which has queries, keys and values apart."""
    kept = {name: x for name, x in weights.items() if not name.endswith(".position_ids")}
    ours = _of_one_image(_rename(kept, HF_CLIP))
    for name in [name for name in ours if ".self_attn.q_proj." in name]:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in ours for part in parts):
            joined = torch.cat([ours.pop(part) for part in parts])
            ours[name.replace(".self_attn.q_proj.", ".attn.qkv.")] = joined
    return ours


def _rename(weights: Weights, renames: Renames) -> dict[str, Tensor]:
    ours = {}
    for name, x in weights.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        ours[name] = x
    return ours


def _of_one_image(weights: Weights) -> dict[str, Tensor]:
    """Class token (D,) and positions (1 + N, D) with the axes that ours have: (1, 1, D), (1, 1 + N, D)."""
    axes = {CLASS_TOKEN: (None, None), POSITIONS: (None,)}
    return {name: x[axes[name]] if name in axes else x for name, x in weights.items()}
