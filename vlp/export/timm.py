"""A folder for `timm.create_model("local-dir:FOLDER")`: the image encoder, CLIP's with its projection."""

from pathlib import Path

import torch
from torch import Tensor

from vlp.core.normalization import MEAN_STD
from vlp.encoders.image_encoder import TimmModel
from vlp.export.format import FORMATS, ExportFormat
from vlp.model import Model
from vlp.objectives.objective import Pooling
from vlp.run import RunConfig
from vlp.weights.names import IMAGE_ENCODER, POSITIONS, TIMM, renamed_back

POOLS: dict[Pooling, str] = {"class_token": "token", "mean": "avg"}


@FORMATS.register
class Timm(ExportFormat):
    """timm's: what it pools are the features that evaluations read, before they have unit length."""

    name = "timm"
    usage = 'import timm\n\nmodel = timm.create_model("local-dir:{folder}", pretrained=True).eval()'

    def check(self, run: RunConfig) -> None:
        run.image_encoder.as_timm()
        if run.objective.pooling is None:
            raise ValueError(
                f"objective {run.objective.name} changes what the states are pooled to, and timm does not"
            )

    def write(self, model: Model, folder: Path) -> None:
        import timm
        from timm.models import save_for_hf

        architecture, arguments = _with_head(model)
        theirs = timm.create_model(architecture, pretrained=False, **arguments)
        theirs.load_state_dict(_weights(model))
        mean, std = MEAN_STD[model.config.data.normalization]
        data = {"mean": mean, "std": std, "crop_pct": 1.0, "crop_mode": "center", "interpolation": "bicubic"}
        save_for_hf(theirs, str(folder), model_args=arguments, data_config=data, safe_serialization=True)


def _with_head(model: Model) -> TimmModel:
    """Pooled as the objective does; of CLIP's with the projection."""
    pooling = model.config.objective.pooling
    assert pooling is not None
    architecture, arguments = model.config.image_encoder.as_timm()
    projection = _projection(model)
    num_classes = 0 if projection is None else len(projection)
    return TimmModel(architecture, arguments | {"global_pool": POOLS[pooling], "num_classes": num_classes})


def _weights(model: Model) -> dict[str, Tensor]:
    encoder = model.objective.image_encoder
    ours = {IMAGE_ENCODER + name: x for name, x in encoder.state_dict().items()}
    ours |= {
        IMAGE_ENCODER + name: x for name, x in encoder.named_buffers() if IMAGE_ENCODER + name == POSITIONS
    }
    theirs = renamed_back(ours, TIMM)
    projection = _projection(model)
    if projection is not None:
        theirs |= {"head.weight": projection, "head.bias": torch.zeros(len(projection))}
    return theirs


def _projection(model: Model) -> Tensor | None:
    """(E, D), of CLIP."""
    return model.objective.state_dict().get("image_projection.weight")
