"""Folders of timm, as `save_for_hf` writes them and `timm.create_model("local-dir:FOLDER")` reads them."""

from pathlib import Path

from vlp.data.config import DataConfig
from vlp.encoders.timm import TimmConfig
from vlp.imports.library import LIBRARIES, Library, normalization_of, read_json
from vlp.objectives.features import FeaturesConfig
from vlp.run import RunConfig

SETTINGS = "config.json"


@LIBRARIES.register
class Timm(Library):
    """An image encoder: features without a text tower, and without its classifier."""

    name = "timm"

    def recognizes(self, folder: Path) -> bool:
        return "architecture" in read_json(folder / SETTINGS)

    def run_of(self, folder: Path) -> RunConfig:
        content = read_json(folder / SETTINGS)
        config, arguments = content.get("pretrained_cfg", content), content.get("model_args", {})
        size = arguments.get("img_size") or config.get("input_size", (3, 224, 224))[-1]
        encoder = TimmConfig(
            model=content["architecture"],
            image_size=size if isinstance(size, int) else size[-1],
            arguments={k: x for k, x in arguments.items() if k not in ("img_size", "num_classes")},
        )
        return RunConfig(
            name=folder.resolve().name,
            data=DataConfig(normalization=normalization_of(config.get("mean"), config.get("std"))),
            image_encoder=encoder,
            objective=FeaturesConfig(),
        )
