"""Graphs of the encoders, for any batch size: image.onnx, and text.onnx where there is a text encoder."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from vlp.core.normalization import MEAN_STD
from vlp.export.format import FORMATS, ExportFormat
from vlp.model import Model
from vlp.objectives import Objective
from vlp.run import RunConfig

OPSET = 20


@FORMATS.register
class Onnx(ExportFormat):
    """ONNX's, for runtimes without PyTorch; onnx and onnxscript have to be installed."""

    name = "onnx"
    usage = (
        "import onnxruntime\n\n"
        'image = onnxruntime.InferenceSession("{folder}/image.onnx")\n'
        'embeddings, = image.run(None, {{"images": images}})  # (B, 3, H, W) float32, normalized'
    )

    def check(self, run: RunConfig) -> None:
        pass

    def write(self, model: Model, folder: Path) -> None:
        run, objective = model.config, model.objective
        size = run.image_encoder.image_size
        images = torch.zeros(2, 3, size, size)
        encode = objective.encode_image if run.objective.encodes_text else objective.features
        _write(_Encoder(objective, encode), {"images": images}, folder / "image.onnx")
        if run.objective.encodes_text:
            tokens, lengths = model.tokenize(["a", "a photo of a cat"])
            inputs = {"tokens": tokens, "lengths": lengths}
            _write(_Encoder(objective, objective.encode_text), inputs, folder / "text.onnx")
        mean, std = MEAN_STD[run.data.normalization]
        preprocessing = {
            "image_size": size,
            "interpolation": "bicubic",
            "crop": "center",
            "mean": mean,
            "std": std,
        }
        (folder / "preprocessing.json").write_text(json.dumps(preprocessing, indent=1))


class _Encoder(nn.Module):
    """One of the functions of an objective as the forward pass of a module."""

    def __init__(self, objective: Objective, encode: Callable[..., Tensor]) -> None:
        super().__init__()
        self.objective = objective
        self.encode = encode

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.encode(*inputs)


def _write(module: nn.Module, inputs: dict[str, Tensor], file: Path) -> None:
    """Every first axis is the batch; tokens' second is as long as the longest text.

    Raises:
        ValueError: PyTorch does not translate the module, as the attention of timm's BEiT.
    """
    dynamic = {name: {0: "batch", 1: "tokens"} if name == "tokens" else {0: "batch"} for name in inputs}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name: batch")  # it is the lengths' too, as meant
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                file,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=["embeddings"],
                dynamic_shapes=(tuple(dynamic.values()),),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"PyTorch does not translate it: {reason}") from error
