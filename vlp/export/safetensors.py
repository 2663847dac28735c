"""Weights alone, by our names, with the settings that they belong to."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from vlp.export.format import FORMATS, ExportFormat
from vlp.model import Model
from vlp.run import RunConfig


@FORMATS.register
class Safetensors(ExportFormat):
    """For code of one's own: every trained weight of any model, plug-ins included."""

    name = "safetensors"
    usage = (
        "from safetensors.torch import load_file\n\n"
        'weights = load_file("{folder}/model.safetensors")  # the settings are in config.json'
    )

    def check(self, run: RunConfig) -> None:
        pass

    def write(self, model: Model, folder: Path) -> None:
        weights = {name: x.contiguous() for name, x in model.objective.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(asdict(model.config), indent=1, default=str))
