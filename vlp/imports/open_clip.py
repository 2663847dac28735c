"""Models of open_clip: by the names of its sizes, and from folders that it loads as `local-dir:FOLDER`."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vlp.core.plain import from_plain
from vlp.imports.library import LIBRARIES, Library, normalization_of, read_json
from vlp.run import RunConfig

SETTINGS = "open_clip_config.json"
KNOWN = {
    "": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "init_logit_bias", "init_logit_scale"},
    "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width", "patch_dropout"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
"""Parts of a model of open_clip -> what ours can be told of it."""


@LIBRARIES.register
class OpenClip(Library):
    """CLIP with two transformers."""

    name = "open_clip"

    def recognizes(self, folder: Path) -> bool:
        return (folder / SETTINGS).is_file()

    def run_of(self, folder: Path) -> RunConfig:
        content = read_json(folder / SETTINGS)
        model, images = content.get("model_cfg", {}), content.get("preprocess_cfg", {})
        towers = settings_of_model(model, name=str(folder / SETTINGS))
        if "init_logit_bias" in model:
            towers["objective"]["loss"] = {"name": "sigmoid"}
        normalization = normalization_of(images.get("mean"), images.get("std"))
        named = {"name": folder.resolve().name, "data": {"normalization": normalization}}
        return from_plain(RunConfig, named | towers)


def clip_model(name: str) -> dict[str, Any]:
    """The sizes of a model of open_clip.

    Raises:
        ValueError: it has none of this name.
    """
    import open_clip

    model = open_clip.get_model_config(name)
    if model is None:
        close = get_close_matches(name, open_clip.list_models(), n=1)
        raise ValueError(
            f"model {name} is not a model of open_clip; did you mean {close[0] if close else 'ViT-B-32'}?"
        )
    return model


def settings_of_model(model: dict[str, Any], *, name: str) -> dict[str, Any]:
    """Settings of a run that make both towers of a model of open_clip.

    Raises:
        ValueError: it has parts that ours cannot have; names them.
    """
    for part, known in KNOWN.items():
        settings = model.get(part, {}) if part else model
        others = sorted({key for key in settings if key not in known})
        if others or not isinstance(model.get("vision_cfg", {}).get("layers"), int):
            what = ", ".join(others) or "a ResNet as its image tower"
            raise ValueError(
                f"model {name} has {what}, which has no counterpart; ViT-B-32, -B-16 and -L-14 have"
            )
    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = {"activation": "quick_gelu"} if model.get("quick_gelu") else {}
    return {
        "image_encoder": {
            "name": "vit",
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "width": vision["width"],
            "depth": vision["layers"],
            "num_heads": vision["width"] // vision.get("head_width", 64),
        }
        | activation,
        "tokenizer": {"name": "clip_bpe", "context_length": text["context_length"]},
        "objective": {
            "name": "contrastive",
            "embed_dim": model["embed_dim"],
            "text_encoder": {"width": text["width"], "depth": text["layers"], "num_heads": text["heads"]}
            | activation,
        },
    }
