"""Training steps of Hugging Face's models for reconstruction: its forward pass with its loss, and AdamW."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import cycle
from typing import Any

import torch
from steps.side import Steps
from steps.sizes import photographs
from torch import Tensor
from transformers.models.swin.configuration_swin import SwinConfig
from transformers.models.swin.modeling_swin import SwinForMaskedImageModeling
from transformers.models.vit_mae.configuration_vit_mae import ViTMAEConfig
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEForPreTraining


def mae(device: str, batch_size: int) -> Steps:
    """MAE ViT-B/16; the model draws the masks."""
    model = _trained(ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True, layer_norm_eps=1e-6)), device)
    images = _images(batch_size, 224, device)
    data = cycle([{"pixel_values": part} for part in images])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05)
    return {"MAE": partial(_step, model, _called(model, device), optimizer, data, device, None)}


def simmim(device: str, batch_size: int) -> Steps:
    """SimMIM Swin-B at 192 pixels; the masks are drawn beforehand, as a loader does."""
    config = SwinConfig(
        image_size=192,
        window_size=6,
        embed_dim=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        drop_path_rate=0.0,
        encoder_stride=32,
    )
    model = _trained(SwinForMaskedImageModeling(config), device)
    images = _images(batch_size, 192, device)
    data = cycle([{"pixel_values": part, "bool_masked_pos": _cells(part)} for part in images])
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-4, weight_decay=0.05)
    return {"SimMIM": partial(_step, model, _called(model, device), optimizer, data, device, 5.0)}


def _trained(model: torch.nn.Module, device: str) -> torch.nn.Module:
    return model.to(device).train()


def _step(
    model: torch.nn.Module,
    called: Any,
    optimizer: torch.optim.Optimizer,
    data: Iterator[dict[str, Tensor]],
    device: str,
    max_grad_norm: float | None,
) -> None:
    optimizer.zero_grad()
    with torch.autocast(device, torch.bfloat16) if device == "cuda" else nullcontext():
        loss = called(**next(data)).loss
    loss.backward()
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()


def _called(model: torch.nn.Module, device: str) -> Any:
    return torch.compile(model) if device == "cuda" else model


def _images(batch_size: int, image_size: int, device: str) -> list[Tensor]:
    torch.manual_seed(0)
    parts = photographs(batch_size, image_size, "imagenet")
    return [part.to(device) for part in parts]


def _cells(images: Tensor) -> Tensor:
    """60 % of the cells of 32 pixels hidden, as patches of 4: (B, 2304) bool."""
    noise = torch.rand(len(images), 36, device=images.device)
    cells = torch.zeros_like(noise, dtype=torch.bool).scatter(1, noise.topk(22).indices, True)
    grid = cells.view(-1, 6, 6).repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    return grid.flatten(1)
