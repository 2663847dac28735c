"""Models of timm as image encoders; imported where one is built."""

from collections.abc import Mapping
from math import isqrt
from typing import Any, ClassVar

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from vlp.core.distributed import all_gather, world_size
from vlp.encoders.drop_path import replace_drop_paths
from vlp.encoders.image_encoder import ImageEncoder, ImageEncoderConfig, Names, Weights
from vlp.encoders.patches import patchify, resized_positions, take
from vlp.masking import MaskInputs, Slots

POSITIONS = "trunk.pos_embed"


class TimmEncoder(ImageEncoder):
    """A model of timm without its classifier; its first state is what timm pools, before the classifier."""

    timm_names: ClassVar[Names] = (("", "trunk."),)
    sees_patches_apart: ClassVar[bool]
    """Whether each patch is embedded for itself, so that hidden ones can be left out."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config: Any = config
        self.trunk: Any = create(self.config.model, config.image_size, self.config.all_arguments)
        self.width = self.trunk.num_features
        names = [info["module"] for info in self.trunk.feature_info]
        stages = [self.trunk.get_submodule(name) for name in names]
        self.blocks = [stage for stage in stages if any(True for _ in stage.parameters())]

    def changing_buffers(self) -> list[Tensor]:
        saved = self.state_dict()
        return [buffer for name, buffer in self.named_buffers() if name in saved]

    def adapted(self, weights: Weights) -> dict[str, Tensor]:
        own = dict(self.named_parameters()).get(POSITIONS)
        if own is None or POSITIONS not in weights:
            return dict(weights)
        positions = resized_positions(weights[POSITIONS], like=own, num_patches=self.config.num_patches)
        return dict(weights) | {POSITIONS: positions}


class Transformer(TimmEncoder):
    """A vision transformer of timm: hidden patches never enter its blocks, padding is invisible to all."""

    sees_patches_apart: ClassVar[bool] = True

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__(config)
        self.token_width = self.trunk.embed_dim

    def mask_inputs(self, images: Tensor) -> MaskInputs:
        size = (len(images), self.config.num_patches)
        return MaskInputs(
            size,
            images.device,
            patches=lambda: patchify(images, self.config.patch_size),
            tokens=lambda: self._positioned(self.trunk.patch_embed(images))[1].detach(),
        )

    def encode_replaced(self, images: Tensor, masked: Tensor, mask_token: Tensor) -> Tensor:
        embedded = self.trunk.patch_embed(images)
        tokens = torch.where(masked[:, :, None], mask_token.to(embedded.dtype), embedded)
        return self._encode(*self._positioned(tokens), None)[:, 1:]

    def forward(self, images: Tensor, slots: Slots | None = None) -> Tensor:
        prefix, tokens = self._positioned(self.trunk.patch_embed(images))
        if slots is None:
            return self._encode(prefix, tokens, None)
        return self._encode(prefix, take(tokens, slots.keep_indices), slots.is_padding)

    def _positioned(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """With their positions, those before the patches apart, such as the class token."""
        tokens = self.trunk._pos_embed(tokens)
        return tokens[:, : self.trunk.num_prefix_tokens], tokens[:, self.trunk.num_prefix_tokens :]

    def _encode(self, prefix: Tensor, tokens: Tensor, is_padding: Tensor | None) -> Tensor:
        """Run the blocks: (B, R, D), (B, V, D), (B, V) -> (B, 1 + V, D)."""
        x, attends, first = torch.cat([prefix, tokens], dim=1), None, prefix.shape[1]
        is_real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if is_padding is not None:
            is_real[:, first:] = ~is_padding
            attends = is_real[:, None, None, :]
        x = self.trunk.norm_pre(x)
        for block in self.trunk.blocks:
            x = block(x, attn_mask=attends)
        x = self.trunk.norm(x)
        return self.trunk.fc_norm(torch.cat([self._pooled(x, is_real), x[:, first:]], dim=1))

    def _pooled(self, x: Tensor, is_real: Tensor) -> Tensor:
        """The class token, or the mean of what is real: (B, R + V, D), (B, R + V) -> (B, 1, D)."""
        if self.trunk.global_pool == "token":
            return x[:, :1]
        first = 0 if self.trunk.pool_include_prefix else self.trunk.num_prefix_tokens
        is_pooled = is_real[:, first:, None]
        return (x[:, first:] * is_pooled).sum(dim=1, keepdim=True) / is_pooled.sum(dim=1, keepdim=True)


class WholeImages(TimmEncoder):
    """A model of timm that always sees whole images, and gives a square map of states, or a row of them."""

    sees_patches_apart: ClassVar[bool] = False

    def mask_inputs(self, images: Tensor) -> MaskInputs:
        size = (len(images), self.config.num_patches)
        return MaskInputs(size, images.device, patches=lambda: patchify(images, self.config.patch_size))

    def encode_replaced(self, images: Tensor, masked: Tensor, mask_token: Tensor) -> Tensor:
        raise ValueError(f"{self.config.model} of timm sees whole images; none of their patches is replaced")

    def forward(self, images: Tensor, slots: Slots | None = None) -> Tensor:
        if slots is not None and slots.keep_indices.shape[1] < self.config.num_patches:
            raise ValueError(f"{self.config.model} of timm needs all patches; none can be left out")
        states = self.trunk.forward_features(images)
        pooled = self.trunk.forward_head(states, pre_logits=True)[:, None]
        if states.ndim == 4:  # each place by itself goes through what timm does after pooling
            rows = states if _is_channels_last(self.trunk) else states.permute(0, 2, 3, 1)
            places = rows.flatten(0, 2)
            places = places[:, None, None] if _is_channels_last(self.trunk) else places[:, :, None, None]
            patches = self.trunk.forward_head(places, pre_logits=True).unflatten(0, (len(images), -1))
        else:
            patches = self.trunk.fc_norm(states[:, self.trunk.num_prefix_tokens :])
        return torch.cat([pooled, patches], dim=1)


def arguments_of(model: str, image_size: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """What `timm.create_model` is told beside the name: the image size, where a model has one of its own.

    Poolings with weights of their own, or of the largest numbers, become the mean of the patches.
    """
    with torch.device("meta"):
        usual: Any = timm.create_model(model, pretrained=False, **given)
    arguments = dict(given)
    if hasattr(usual, "dynamic_img_size"):
        arguments |= {"dynamic_img_size": False}
    if hasattr(usual, "dynamic_img_size") or usual.pretrained_cfg["fixed_input_size"]:
        arguments |= {"img_size": image_size}
    pooling = getattr(usual, "global_pool", None)
    if isinstance(pooling, str) and pooling not in ("token", "avg"):
        arguments |= {"global_pool": "avg", "fc_norm": False}
    return arguments


def create(model: str, image_size: int, given: Mapping[str, Any]) -> nn.Module:
    """A model of timm with random weights, batch norms of the global batch, and paths dropped by the step.

    Raises:
        ValueError: it cannot have the image size, or what is given.
    """
    try:
        arguments = arguments_of(model, image_size, given)
        trunk = timm.create_model(model, pretrained=False, num_classes=0, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"model {model} cannot be built with {given or 'its image_size'}: {reason}"
        ) from error
    replace_drop_paths(trunk)
    replace_batch_norms(trunk)
    return trunk


def encoder_of(trunk: Any, image_size: int) -> tuple[type[TimmEncoder], int]:
    """What makes an encoder of a model on the meta device, and the side of its patches in pixels.

    Raises:
        ValueError: nothing does.
    """
    name = trunk.pretrained_cfg["architecture"]
    embeds_apart = type(getattr(trunk, "patch_embed", None)) is PatchEmbed
    is_vit = type(trunk) is VisionTransformer and embeds_apart
    try:
        shape = trunk.forward_features(torch.zeros(1, 3, image_size, image_size)).shape
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"model {name} takes no images of image_size {image_size}") from error
    is_map = len(shape) == 4 and shape[3 if _is_channels_last(trunk) else 1] == trunk.num_features
    num_states = shape[2] ** 2 if is_map else shape[1] - getattr(trunk, "num_prefix_tokens", 0)
    side = isqrt(num_states)
    is_row = len(shape) == 3 and hasattr(trunk, "fc_norm")
    if not (is_map or is_row) or side * side != num_states or (image_size % side and not is_vit):
        raise ValueError(
            f"model {name} gives no square of states of images of image_size {image_size}; choose another "
            "size, or a vision transformer, ResNet or ConvNeXt"
        )
    patch_size = trunk.patch_embed.patch_size[0] if is_vit else image_size // side
    return Transformer if is_vit else WholeImages, patch_size


def _is_channels_last(trunk: Any) -> bool:
    """Whether its map of states is (B, H, W, C), as a Swin's."""
    return getattr(trunk, "output_fmt", "NCHW") == "NHWC"


class BatchNorm(nn.BatchNorm2d):
    """Normalizes by the statistics of the global batch, however many workers share it."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) twice."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        wide = input.float()
        variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        means, variances = all_gather(torch.stack([mean, variance])[None]).unbind(dim=1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        self._remember(mean, variance, count=input.numel() // input.shape[1] * world_size())
        scale = self.weight * (variance + self.eps).rsqrt()
        normed = (wide - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return normed.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


def replace_batch_norms(trunk: nn.Module) -> None:
    """Put ours in the place of PyTorch's, whose statistics are those of one worker's images.

    Raises:
        ValueError: there is one of another kind.
    """
    for module in trunk.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm
        elif isinstance(module, _BatchNorm) and type(module) is not BatchNorm:
            raise ValueError(
                f"model has batch norms of another kind ({type(module).__name__}), which take one worker's "
                "images alone; choose resnet50, convnext_tiny or a vision transformer"
            )
