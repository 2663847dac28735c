"""open_clip's training step: what open_clip_train calls at each step, with its optimizer and loss."""

import math
from contextlib import nullcontext
from itertools import cycle
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip_train.precision import get_autocast
from steps.side import Steps
from steps.sizes import Size, captions, photographs


def clip(size: Size, device: str) -> Steps:
    """CLIP of the same sizes, on the same images and captions."""
    torch.manual_seed(0)
    model = _model(size).to(device).train()
    optimizer = _optimizer(model)
    loss = ClipLoss(local_loss=True, gather_with_grad=True, cache_labels=True)
    tokenizer, batch_size = open_clip.get_tokenizer("ViT-B-16"), size.batch_size[device]
    texts = [tokenizer(part).to(device) for part in captions(batch_size)]
    images = [part.to(device) for part in photographs(batch_size, size.image_size, "clip")]
    data = cycle(zip(images, texts, strict=True))
    autocast = nullcontext if device == "cpu" else get_autocast("amp_bf16", device_type=device)
    called = torch.compile(model) if device == "cuda" else model

    def step() -> None:
        images, texts = next(data)
        optimizer.zero_grad()
        with autocast():
            losses = loss(**called(images, texts), output_dict=True)
            total: Any = sum(losses.values())
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, norm_type=2.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    return {"CLIP": step}


def _model(size: Size) -> Any:
    vision = CLIPVisionCfg(
        image_size=size.image_size, patch_size=size.patch_size, width=size.width, layers=size.depth
    )
    text = CLIPTextCfg(width=size.text_width, heads=size.text_width // 64, layers=size.depth)
    return open_clip.CLIP(size.embed_dim, vision, text, output_dict=True)


def _optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Nothing decays whose name or shape says bias, gain or norm, as in open_clip_train."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        excluded = parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        groups[not excluded].append(parameter)
    decays = [{"params": groups[True], "weight_decay": 0.2}, {"params": groups[False], "weight_decay": 0.0}]
    return torch.optim.AdamW(decays, lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
