"""What the encoders have in common: a stack of transformer blocks."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Activation = Literal["gelu", "quick_gelu"]
"""`quick_gelu`, x * sigmoid(1.702 x), is for weights that were trained with it, such as OpenAI's CLIP."""


class Encoder(Protocol):
    """A module whose work is done by blocks, one after another."""

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The first is next to the input."""
        ...

    shared_by_blocks: ClassVar[Collection[str]]
    """Names of parameters that all blocks use, and that so belong to none of them."""

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of such an encoder, perhaps for an input of another size, as this one has them."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...


def activation_layer(name: Activation) -> type[nn.Module]:
    """What stands between the two layers of a block's MLP."""
    from timm.layers.activations import QuickGELU

    return {"gelu": nn.GELU, "quick_gelu": QuickGELU}[name]


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Keep only each block's input for the backward pass, which runs the block once more.

    A forward pass more buys memory; no result changes, dropped paths included.
    """
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(blocks: Iterable[nn.Module], *, backend: str = "inductor") -> None:
    """Compile each block by itself, at its first call.

    Blocks of one kind share the compiled code, and the gradients of a block go to the other workers while the
    blocks below are still at work.
    """
    for block in blocks:
        block.compile(backend=backend)
