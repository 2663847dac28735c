"""A folder for `timm.create_model("local-dir:FOLDER")`: the image encoder, CLIP's with its projection."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlp.core.normalization import MEAN_STD
from vlp.encoders.image_encoder import TimmModel
from vlp.export.format import FORMATS, ExportFormat, weights_for
from vlp.model import Model
from vlp.run import RunConfig


@FORMATS.register
class Timm(ExportFormat):
    """timm's: what it pools are the features that evaluations read, before they have unit length."""

    name = "timm"
    usage = 'import timm\n\nmodel = timm.create_model("local-dir:{folder}", pretrained=True).eval()'

    def check(self, run: RunConfig) -> None:
        theirs = run.image_encoder.as_timm()
        if run.objective.pooling is None:
            raise ValueError(
                f"objective {run.objective.name} changes what the states are pooled to, and timm does not"
            )

        if run.objective.pooling not in theirs.poolings:
            raise ValueError(
                f"objective {run.objective.name} takes the mean of the patches, which image_encoder "
                f"{run.image_encoder.label} normalizes, and timm's after the mean"
            )

    def write(self, model: Model, folder: Path) -> None:
        import timm
        from timm.models import save_for_hf

        architecture, arguments, _ = _with_head(model)
        theirs: Any = timm.create_model(architecture, pretrained=False, **arguments)
        _set_weights(theirs, model)
        mean, std = MEAN_STD[model.config.data.normalization]
        data = {"mean": mean, "std": std, "crop_pct": 1.0, "crop_mode": "center", "interpolation": "bicubic"}
        save_for_hf(theirs, str(folder), model_args=arguments, data_config=data, safe_serialization=True)


def _with_head(model: Model) -> TimmModel:
    """Pooled as the objective does; of CLIP's with the projection."""
    pooling = model.config.objective.pooling
    assert pooling is not None
    architecture, arguments, poolings = model.config.image_encoder.as_timm()
    projection = _projection(model)
    num_classes = 0 if projection is None else len(projection)
    return TimmModel(architecture, arguments | poolings[pooling] | {"num_classes": num_classes})


def _set_weights(theirs: Any, model: Model) -> None:
    """Those of the encoder by name, and the projection as the classifier, whatever it is called."""
    missing, unexpected = theirs.load_state_dict(weights_for("timm", model.objective), strict=False)
    projection = _projection(model)
    of_classifier = 0 if projection is None else 2
    assert (len(missing), unexpected) == (of_classifier, [])
    if projection is not None:
        classifier = theirs.get_classifier()
        with torch.no_grad():
            classifier.weight.copy_(projection)
            classifier.bias.zero_()


def _projection(model: Model) -> Tensor | None:
    """(E, D), of CLIP."""
    return model.objective.state_dict().get("image_projection.weight")
