"""What the encoders have in common: a stack of transformer blocks."""

from functools import partial
from typing import Literal

import timm.models.beit as timm_beit
import timm.models.swin_transformer as timm_swin
import timm.models.vision_transformer as timm_vit
from timm.layers.activations import QuickGELU
from torch import nn
from torch.utils.checkpoint import checkpoint

BLOCKS = (timm_vit.Block, timm_beit.Block, timm_swin.SwinTransformerBlock)
Activation = Literal["gelu", "quick_gelu"]
"""`quick_gelu`, x * sigmoid(1.702 x), is for weights that were trained with it, such as OpenAI's CLIP."""
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU}


def checkpoint_blocks(model: nn.Module) -> None:
    """Keep only each block's input for the backward pass, which runs the block once more.

    A forward pass more buys memory; no result changes, dropped paths included.
    """
    for module in model.modules():
        if isinstance(module, BLOCKS):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def compile_blocks(model: nn.Module, *, backend: str = "inductor") -> None:
    """Compile each block by itself, at its first call.

    Blocks of one kind share the compiled code, and the gradients of a block go to the other workers while the
    blocks below are still at work.
    """
    for module in model.modules():
        if isinstance(module, BLOCKS):
            module.compile(backend=backend)
