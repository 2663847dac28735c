"""CLIP as open_clip and transformers know it."""

from typing import Any, NamedTuple, cast

from vlp.objectives.contrastive import ContrastiveConfig
from vlp.run import RunConfig
from vlp.tokenizers.clip_bpe import ClipBPEConfig

CLIP_VIT = "vit_base_patch16_clip_224"


class ClipParts(NamedTuple):
    """The settings of both towers."""

    image: dict[str, Any]
    """As timm names them."""
    objective: ContrastiveConfig


def clip_parts(run: RunConfig) -> ClipParts:
    """Read the settings of a CLIP.

    Raises:
        ValueError: it is not one; says what differs.
    """
    if run.objective.architecture != "clip":
        raise ValueError(f"objective {run.objective.name} is not CLIP's")
    objective = cast(ContrastiveConfig, run.objective)
    architecture, image, _ = run.image_encoder.as_timm()
    text = objective.text_encoder
    if architecture != CLIP_VIT or not image.get("pre_norm"):
        raise ValueError("image_encoder is not CLIP's ViT, with pre_norm true and norm_eps 1e-5")
    if image["act_layer"] != text.activation:
        raise ValueError(
            f"image_encoder.activation is {image['act_layer']} and the text encoder's {text.activation}; "
            "its towers share one"
        )
    clips = ClipBPEConfig(context_length=run.tokenizer.context_length)
    if run.tokenizer.build().identity != clips.build().identity:
        raise ValueError(f"tokenizer {run.tokenizer.name}, as it is set, gives other ids than CLIP's")
    return ClipParts(image, objective)
