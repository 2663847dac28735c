"""Our training steps: what a training worker calls at each step, with the settings of conf/run."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any

import torch
from steps.side import Steps
from steps.sizes import Size, batches, photographs
from torch import Generator, Tensor

from vlp.core.batch import Batch
from vlp.encoders import ImageEncoderConfig
from vlp.encoders.blocks import compile_blocks
from vlp.encoders.swin import SwinConfig
from vlp.encoders.text import TextConfig
from vlp.encoders.vit import ViTConfig
from vlp.masking import MaskStrategy, Slots
from vlp.masking.attention import AttentionMask
from vlp.masking.calibration import calibrate
from vlp.masking.cluster import ClusterMask
from vlp.masking.grid import GridMask
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.objectives import Objective, ObjectiveConfig, Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.mae import MAEConfig
from vlp.objectives.simmim import SimMIMConfig
from vlp.objectives.superclass import SuperClassConfig
from vlp.text_masking import TextMask
from vlp.text_masking.none import NoTextMask
from vlp.text_masking.random import RandomTextMask
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.training.cpu import fastest_matmul, prepare_cpu_training
from vlp.training.optim import AdamWConfig, OptimizerConfig, build_optimizer
from vlp.training.step import TrainingConfig, forward, update

WHOLE = NoTextMask()


class Training:
    """A model in training."""

    def __init__(
        self, objective: Objective, optimizer: OptimizerConfig, *, device: str, max_grad_norm: float | None
    ) -> None:
        self.objective = objective.to(device).train()
        if device == "cuda":
            # Every mask has its own shapes, and all of them share one process here.
            torch._dynamo.config.recompile_limit = 64
            compile_blocks(objective.blocks)
        else:
            prepare_cpu_training(objective, matmul=fastest_matmul())
        self.optimizer = build_optimizer(objective, optimizer)
        self.config = TrainingConfig(
            precision="bf16" if device == "cuda" else "fp32", max_grad_norm=max_grad_norm
        )
        self.lr = optimizer.lr
        self.steps_done = 0

    def step(self, data: Iterator[Batch], mask: MaskStrategy, text_mask: TextMask = WHOLE) -> None:
        """One step, with any masks."""
        self.objective.mask, self.objective.text_mask = mask, text_mask
        loss, _ = forward(self.objective, next(data), self.config, step=self.steps_done % 100, seed=0)
        update(self.objective, loss, self.optimizer, lr=self.lr, max_norm=self.config.max_grad_norm)
        self.objective.after_update()
        self.steps_done += 1


def clip_and_masked(size: Size, device: str) -> Steps:
    """The contrastive methods on one model, and the choice of the cluster mask alone."""
    text = TextConfig(width=size.text_width, depth=size.depth, num_heads=size.text_width // 64)
    training = _training(ContrastiveConfig(embed_dim=size.embed_dim, text_encoder=text), size, device)
    data = batches(size, device)
    masks: dict[str, MaskStrategy] = {
        "CLIP": NoMask(),
        "FLIP 0.5": RandomMask(mask_ratio=0.5),
        "cluster RGB 0.5": _calibrated(ClusterMask(anchor_ratio=0.03, min_mask_ratio=0.5), training, data),
        "FLIP_Attn": AttentionMask(mask_ratio=0.5),
    }
    steps: dict[str, Callable[[], Any]] = {
        name: partial(training.step, cycle(data), mask) for name, mask in masks.items()
    }
    both = (masks["FLIP 0.5"], RandomTextMask(num_tokens=8))
    steps["FLIP 0.5, 8 tokens"] = partial(training.step, cycle(data), *both)
    choose = partial(_choose, training.objective, cycle(data), masks["cluster RGB 0.5"])
    return steps | {"choice": choose}


def superclass(size: Size, device: str) -> Steps:
    """SuperClass with the image encoder of the same size."""
    training = _training(SuperClassConfig(idf="online"), size, device)
    return {"SuperClass": partial(training.step, cycle(batches(size, device)), NoMask())}


def mae(device: str, batch_size: int) -> Steps:
    """The step of conf/run/mae.yaml."""
    encoder = ViTConfig(positions="sincos", pre_norm=False, norm_eps=1e-6)
    mask = RandomMask(mask_ratio=0.75)
    optimizer = AdamWConfig(lr=2.4e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.05)
    images = _on(device, photographs(batch_size, encoder.image_size, "imagenet"))
    return {"MAE": _reconstruction(MAEConfig(), encoder, mask, optimizer, images, max_grad_norm=None)}


def simmim(device: str, batch_size: int) -> Steps:
    """The step of conf/run/simmim.yaml."""
    encoder = SwinConfig(image_size=192, window_size=6)
    mask = GridMask(mask_ratio=0.6, cell_size=8)
    optimizer = AdamWConfig(lr=8e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)
    images = _on(device, photographs(batch_size, encoder.image_size, "imagenet"))
    return {"SimMIM": _reconstruction(SimMIMConfig(), encoder, mask, optimizer, images, max_grad_norm=5.0)}


def _reconstruction(
    objective: ObjectiveConfig,
    encoder: ImageEncoderConfig,
    mask: MaskStrategy,
    optimizer: OptimizerConfig,
    images: list[Tensor],
    *,
    max_grad_norm: float | None,
) -> Callable[[], None]:
    torch.manual_seed(0)
    model = objective.build(encoder.build(), mask, vocabulary=Vocabulary(2, 2))
    training = Training(model, optimizer, device=images[0].device.type, max_grad_norm=max_grad_norm)
    no_text = torch.zeros(len(images[0]), 2, dtype=torch.int64, device=images[0].device)
    data = [Batch(part, no_text, no_text[:, 0]) for part in images]
    return partial(training.step, cycle(data), mask)


def _on(device: str, images: list[Tensor]) -> list[Tensor]:
    return [part.to(device) for part in images]


def _training(objective: ObjectiveConfig, size: Size, device: str) -> Training:
    torch.manual_seed(0)
    encoder = ViTConfig(
        image_size=size.image_size,
        patch_size=size.patch_size,
        width=size.width,
        depth=size.depth,
        num_heads=size.width // 64,
    )
    tokenizer = ClipBPEConfig().build()
    vocabulary = Vocabulary(tokenizer.vocab_size, 77, tokenizer.special_tokens)
    model = objective.build(encoder.build(), NoMask(), vocabulary=vocabulary)
    model.hide_words(WHOLE, vocabulary)
    return Training(model, AdamWConfig(lr=5e-4), device=device, max_grad_norm=1.0)


def _calibrated(mask: ClusterMask, training: Training, data: list[Batch]) -> ClusterMask:
    inputs = [training.objective.mask_inputs(batch.images) for batch in data]
    return calibrate(replace(mask, threshold="auto"), inputs).mask


@torch.no_grad()
def _choose(objective: Objective, data: Iterator[Batch], mask: MaskStrategy) -> Slots:
    objective.mask = mask
    images = next(data).images
    return objective.choose_visible(images, progress=0.5, generator=Generator(images.device).manual_seed(0))
