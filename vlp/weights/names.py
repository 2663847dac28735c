"""What timm, open_clip and transformers call weights, and what we do: one table for both directions."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from vlp.encoders.image_encoder import ImageEncoder, Names, Weights

IMAGE_ENCODER, POSITIONS = "image_encoder.", "image_encoder.positions"
CLASS_TOKEN = "image_encoder.class_token"
CLASSIFIER = re.compile(r"(head|fc|head_dist|head\.fc)\.(weight|bias)")
"""timm's, which is not part of an encoder."""
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


def our_names(weights: Weights, *, format: str, encoder: ImageEncoder) -> dict[str, Tensor]:
    """Weights of another library by the names, and in the shapes, that our models have.

    Args:
        encoder: whose weights they are to be, or are among.
    """
    converters: dict[str, Callable[[Weights], dict[str, Tensor]]] = {
        "vlp": dict,
        "timm": lambda weights: _renamed(_without_classifier(weights), _timm(encoder)),
        "open_clip": _from_open_clip,
        "huggingface": _from_hugging_face,
    }
    return converters[format](weights)


def their_names(weights: Weights, *, format: str, encoder: ImageEncoder) -> dict[str, Tensor]:
    """Weights of ours by the names, and in the shapes, that another library has: the inverse of `our_names`.

    Those of an encoder with positions that are fixed have to have these, too.
    """
    converters: dict[str, Callable[[Weights], dict[str, Tensor]]] = {
        "timm": lambda weights: _renamed(_of_encoder(weights), _turned(_timm(encoder))),
        "open_clip": _to_open_clip,
        "huggingface": _to_hugging_face,
    }
    return {name: x.contiguous() for name, x in converters[format](weights).items()}


def _timm(encoder: ImageEncoder) -> Names:
    """The names of an encoder, of which those that differ come first."""
    return [(theirs, IMAGE_ENCODER + ours) for theirs, ours in (*encoder.timm_names, ("", ""))]


def _without_classifier(weights: Weights) -> dict[str, Tensor]:
    return {name: x for name, x in weights.items() if not CLASSIFIER.fullmatch(name)}


def _of_encoder(weights: Weights) -> dict[str, Tensor]:
    return {name: x for name, x in weights.items() if name.startswith(IMAGE_ENCODER)}


def _from_open_clip(weights: Weights) -> dict[str, Tensor]:
    """CLIP with two transformers, the text's perhaps in a module of its own; its projections multiply from
    the right."""
    ours = _renamed({name.removeprefix("text."): x for name, x in weights.items()}, OPEN_CLIP)
    return _transposed(_of_one_image(ours))


def _to_open_clip(weights: Weights) -> dict[str, Tensor]:
    return _renamed(_transposed(_of_no_image(weights)), _turned(OPEN_CLIP))


def _from_hugging_face(weights: Weights) -> dict[str, Tensor]:
    """CLIP of transformers, or its ViTMAE, with queries, keys and values apart."""
    is_mae = any(name.startswith("vit.") for name in weights)
    kept = {name: x for name, x in weights.items() if not name.endswith(".position_ids")}
    ours = _joined(_renamed(kept, HF_MAE if is_mae else HF_CLIP))
    if not is_mae:
        return _of_one_image(ours)
    norm = f"decoder.{_decoder_depth(ours)}."
    ours = {name.replace("decoder.norm.", norm): x for name, x in ours.items()}
    return {name: x[0, 0] if name == "mask_token" else x for name, x in ours.items()}


def _to_hugging_face(weights: Weights) -> dict[str, Tensor]:
    """Those with a decoder to ViTMAE, all others to CLIP."""
    apart = _parts_apart(weights)
    if "to_pixels.weight" not in weights:
        return _renamed(_of_no_image(apart), _turned(HF_CLIP))
    norm = f"decoder.{_decoder_depth(weights)}."
    ours = {name.replace(norm, "decoder.norm."): x for name, x in apart.items()}
    return _renamed(ours | {"mask_token": ours["mask_token"][None, None]}, _turned(HF_MAE))


def _turned(names: Names) -> Names:
    """Ours and theirs."""
    return [(ours, theirs) for theirs, ours in names]


def _renamed(weights: Weights, names: Names) -> dict[str, Tensor]:
    return {_rename(name, names): x for name, x in weights.items()}


def _rename(name: str, names: Names) -> str:
    begins, parts = (
        [pair for pair in names if pair[0].startswith(".") == is_part] for is_part in (False, True)
    )
    old, new = next((pair for pair in begins if name.startswith(pair[0])), ("", ""))
    name = new + name.removeprefix(old)
    for old, new in parts:
        name = name.replace(old, new)
    return name


def _transposed(weights: Weights) -> dict[str, Tensor]:
    return {name: x.T if name in PROJECTIONS else x for name, x in weights.items()}


def _parts_apart(weights: Weights) -> dict[str, Tensor]:
    """Queries, keys and values of each block apart."""
    apart = {}
    for name, x in weights.items():
        if ".attn.qkv." in name:
            parts = zip("qkv", x.chunk(3), strict=True)
            apart |= {name.replace(".qkv.", f".{part}_proj."): own.clone() for part, own in parts}
        else:
            apart[name] = x
    return apart


def _joined(weights: Weights) -> dict[str, Tensor]:
    """Queries, keys and values of each block as one, where all are there."""
    joined = dict(weights)
    for name in [name for name in weights if ".attn.q_proj." in name]:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in joined for part in parts):
            joined[name.replace(".q_proj.", ".qkv.")] = torch.cat([joined.pop(part) for part in parts])
    return joined


def _decoder_depth(weights: Weights) -> int:
    """Blocks of MAE's decoder; its norm comes after them."""
    pattern = re.compile(r"decoder\.(\d+)\.attn\.")
    return len({found[1] for found in map(pattern.match, weights) if found})


def _of_one_image(weights: Weights) -> dict[str, Tensor]:
    """Class token (D,) and positions (1 + N, D) with the axes that ours have: (1, 1, D), (1, 1 + N, D)."""
    axes = {CLASS_TOKEN: (None, None), POSITIONS: (None,)}
    return {name: x[axes[name]] if name in axes else x for name, x in weights.items()}


def _of_no_image(weights: Weights) -> dict[str, Tensor]:
    """The inverse."""
    axes = {CLASS_TOKEN: (0, 0), POSITIONS: (0,)}
    return {name: x[axes[name]] if name in axes else x for name, x in weights.items()}
