"""Vision-language pre-training in plain PyTorch.

    import vlp

    model = vlp.load("results/pretrain/clip-1a2b3c4d")  # the folder of a run, or of a checkpoint
    embeddings = model.encode_text(*model.tokenize(["a cat", "a dog"]))

Shapes in docstrings and comments use one legend:

    B  images in the batch          P  numbers in one patch (patch_size**2 * 3)
    N  patches per image            D  encoder width
    V  visible slots per image      E  shared embedding width
    T  text tokens per caption      K  classes (the vocabulary, for SuperClass)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlp.model import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what takes long when it is first asked for."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlp.model import load

    return load
