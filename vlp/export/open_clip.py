"""A folder for `open_clip.create_model_and_transforms("local-dir:FOLDER")`."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from vlp.core.normalization import MEAN_STD
from vlp.export.clip import clip_parts
from vlp.export.format import FORMATS, ExportFormat, weights_for
from vlp.model import Model
from vlp.run import RunConfig


@FORMATS.register
class OpenClip(ExportFormat):
    """open_clip's: both towers, the scale of the logits, and their bias with SigLIP's loss."""

    name = "open_clip"
    usage = (
        "import open_clip\n\n"
        'model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{folder}")\n'
        'tokenizer = open_clip.get_tokenizer("local-dir:{folder}")'
    )

    def check(self, run: RunConfig) -> None:
        clip_parts(run)

    def write(self, model: Model, folder: Path) -> None:
        theirs = weights_for("open_clip", model.objective)
        save_file(theirs, folder / "open_clip_model.safetensors")
        settings = {"model_cfg": _model(model), "preprocess_cfg": _preprocessing(model)}
        (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=1))


def _model(model: Model) -> dict[str, Any]:
    image, objective = clip_parts(model.config)
    text = objective.text_encoder
    vision = {
        "image_size": image["img_size"],
        "layers": image["depth"],
        "width": image["embed_dim"],
        "head_width": image["embed_dim"] // image["num_heads"],
        "patch_size": image["patch_size"],
    }
    texts = {
        "context_length": model.config.tokenizer.context_length,
        "vocab_size": model.tokenizer.vocab_size,
        "width": text.width,
        "heads": text.num_heads,
        "layers": text.depth,
    }
    settings = {"embed_dim": objective.embed_dim, "vision_cfg": vision, "text_cfg": texts}
    bias = objective.loss.initial_bias
    biased = {} if bias is None else {"init_logit_bias": bias}
    return settings | {"quick_gelu": text.activation == "quick_gelu"} | biased


def _preprocessing(model: Model) -> dict[str, Any]:
    mean, std = MEAN_STD[model.config.data.normalization]
    return {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
