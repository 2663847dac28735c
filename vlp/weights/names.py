"""What timm, open_clip and transformers call weights, and what we do: one table for both directions."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Names = Sequence[tuple[str, str]]
"""Theirs and ours: how a name begins, of which the first that fits counts, or, from a dot on, a part."""

IMAGE_ENCODER, POSITIONS = "image_encoder.", "image_encoder.positions"
CLASS_TOKEN = "image_encoder.class_token"
TIMM: Names = (
    ("cls_token", CLASS_TOKEN),
    ("pos_embed", POSITIONS),
    ("rel_pos_bias.", "image_encoder.relative_positions."),
    ("", IMAGE_ENCODER),
)
OPEN_CLIP: Names = (
    ("visual.class_embedding", CLASS_TOKEN),
    ("visual.positional_embedding", POSITIONS),
    ("visual.conv1.", "image_encoder.patch_embed.proj."),
    ("visual.ln_pre.", "image_encoder.norm_pre."),
    ("visual.ln_post.", "image_encoder.norm."),
    ("visual.proj", "image_projection.weight"),
    ("visual.transformer.resblocks.", "image_encoder.blocks."),
    ("transformer.resblocks.", "text_encoder.blocks."),
    ("token_embedding.", "text_encoder.token_embed."),
    ("positional_embedding", "text_encoder.positions"),
    ("ln_final.", "text_encoder.norm."),
    ("text_projection", "text_projection.weight"),
    ("logit_scale", "log_logit_scale"),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
HF_CLIP: Names = (
    ("vision_model.embeddings.class_embedding", CLASS_TOKEN),
    ("vision_model.embeddings.position_embedding.weight", POSITIONS),
    ("vision_model.embeddings.patch_embedding.", "image_encoder.patch_embed.proj."),
    ("vision_model.pre_layrnorm.", "image_encoder.norm_pre."),
    ("vision_model.post_layernorm.", "image_encoder.norm."),
    ("vision_model.encoder.layers.", "image_encoder.blocks."),
    ("visual_projection.", "image_projection."),
    ("text_model.encoder.layers.", "text_encoder.blocks."),
    ("text_model.embeddings.token_embedding.", "text_encoder.token_embed."),
    ("text_model.embeddings.position_embedding.weight", "text_encoder.positions"),
    ("text_model.final_layer_norm.", "text_encoder.norm."),
    ("logit_scale", "log_logit_scale"),
    (".self_attn.out_proj.", ".attn.proj."),
    (".self_attn.", ".attn."),
    (".layer_norm1.", ".norm1."),
    (".layer_norm2.", ".norm2."),
)
HF_MAE: Names = (
    ("vit.embeddings.cls_token", CLASS_TOKEN),
    ("vit.embeddings.position_embeddings", POSITIONS),
    ("vit.embeddings.patch_embeddings.projection.", "image_encoder.patch_embed.proj."),
    ("vit.encoder.layer.", "image_encoder.blocks."),
    ("vit.layernorm.", "image_encoder.norm."),
    ("decoder.mask_token", "mask_token"),
    ("decoder.decoder_pos_embed", "positions"),
    ("decoder.decoder_embed.", "to_decoder."),
    ("decoder.decoder_pred.", "to_pixels."),
    ("decoder.decoder_norm.", "decoder.norm."),
    ("decoder.decoder_encoder.layer.", "decoder."),
    (".attention.attention.query.", ".attn.q_proj."),
    (".attention.attention.key.", ".attn.k_proj."),
    (".attention.attention.value.", ".attn.v_proj."),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
)
PROJECTIONS = ("image_projection.weight", "text_projection.weight")


def our_names(weights: Weights, *, format: str) -> dict[str, Tensor]:
    """The same weights by the names, and in the shapes, that our models have."""
    converters: dict[str, Callable[[Weights], dict[str, Tensor]]] = {
        "vlp": dict,
        "timm": _from_timm,
        "open_clip": _from_open_clip,
        "huggingface": _from_hugging_face,
    }
    return converters[format](weights)


def renamed(weights: Weights, names: Names) -> dict[str, Tensor]:
    """Their weights by our names."""
    return {_rename(name, names): x for name, x in weights.items()}


def renamed_back(weights: Weights, names: Names) -> dict[str, Tensor]:
    """Our weights by their names."""
    theirs = [(ours, theirs) for theirs, ours in names]
    return {_rename(name, theirs): x for name, x in weights.items()}


def transposed(weights: Weights, names: Iterable[str]) -> dict[str, Tensor]:
    """Weights of which some matrices are multiplied from the other side."""
    turned = frozenset(names)
    return {name: x.T.contiguous() if name in turned else x for name, x in weights.items()}


def parts_apart(weights: Weights) -> dict[str, Tensor]:
    """Queries, keys and values of each block apart, as transformers has them."""
    apart = {}
    for name, x in weights.items():
        if ".attn.qkv." in name:
            for part, own in zip("qkv", x.chunk(3), strict=True):
                apart[name.replace(".qkv.", f".{part}_proj.")] = own.clone()
        else:
            apart[name] = x
    return apart


def _from_timm(weights: Weights) -> dict[str, Tensor]:
    """A ViT; its classifier, if it has one, is not part of an encoder."""
    return renamed({name: x for name, x in weights.items() if not name.startswith("head.")}, TIMM)


def _from_open_clip(weights: Weights) -> dict[str, Tensor]:
    """CLIP with two transformers, the text's perhaps in a module of its own; its projections multiply from
    the right."""
    ours = renamed({name.removeprefix("text."): x for name, x in weights.items()}, OPEN_CLIP)
    return transposed(_of_one_image(ours), PROJECTIONS)


def _from_hugging_face(weights: Weights) -> dict[str, Tensor]:
    """CLIP of transformers, or its ViTMAE, with queries, keys and values apart."""
    is_mae = any(name.startswith("vit.") for name in weights)
    kept = {name: x for name, x in weights.items() if not name.endswith(".position_ids")}
    ours = renamed(kept, HF_MAE if is_mae else HF_CLIP)
    for name in [name for name in ours if ".attn.q_proj." in name]:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in ours for part in parts):
            joined = torch.cat([ours.pop(part) for part in parts])
            ours[name.replace(".q_proj.", ".qkv.")] = joined
    return _mae_decoder(ours) if is_mae else _of_one_image(ours)


def _mae_decoder(weights: Weights) -> dict[str, Tensor]:
    """The last norm of the decoder by its number; the mask token without the axes of images and places."""
    depth = len(
        {name.split(".")[1] for name in weights if name.startswith("decoder.") and "norm" not in name}
    )
    numbered = {name.replace("decoder.norm.", f"decoder.{depth}."): x for name, x in weights.items()}
    return {name: x[0, 0] if name == "mask_token" else x for name, x in numbered.items()}


def _rename(name: str, names: Names) -> str:
    begins, parts = (
        [pair for pair in names if pair[0].startswith(".") == is_part] for is_part in (False, True)
    )
    old, new = next((pair for pair in begins if name.startswith(pair[0])), ("", ""))
    name = new + name.removeprefix(old)
    for old, new in parts:
        name = name.replace(old, new)
    return name


def _of_one_image(weights: Weights) -> dict[str, Tensor]:
    """Class token (D,) and positions (1 + N, D) with the axes that ours have: (1, 1, D), (1, 1 + N, D)."""
    axes = {CLASS_TOKEN: (None, None), POSITIONS: (None,)}
    return {name: x[axes[name]] if name in axes else x for name, x in weights.items()}
