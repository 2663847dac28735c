"""What the encoders have in common: a stack of transformer blocks."""

from functools import partial
from typing import Literal

from torch import nn
from torch.utils.checkpoint import checkpoint

Activation = Literal["gelu", "quick_gelu"]
"""`quick_gelu`, x * sigmoid(1.702 x), is for weights that were trained with it, such as OpenAI's CLIP."""


def activation_layer(name: Activation) -> type[nn.Module]:
    """What stands between the two layers of a block's MLP."""
    from timm.layers.activations import QuickGELU

    return {"gelu": nn.GELU, "quick_gelu": QuickGELU}[name]


def is_block(module: nn.Module) -> bool:
    """Whether a part of an encoder is one of its blocks."""
    from timm.models import beit, swin_transformer, vision_transformer

    return isinstance(module, vision_transformer.Block | beit.Block | swin_transformer.SwinTransformerBlock)


def checkpoint_blocks(model: nn.Module) -> None:
    """Keep only each block's input for the backward pass, which runs the block once more.

    A forward pass more buys memory; no result changes, dropped paths included.
    """
    for module in model.modules():
        if is_block(module):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def compile_blocks(model: nn.Module, *, backend: str = "inductor") -> None:
    """Compile each block by itself, at its first call.

    Blocks of one kind share the compiled code, and the gradients of a block go to the other workers while the
    blocks below are still at work.
    """
    for module in model.modules():
        if is_block(module):
            module.compile(backend=backend)
