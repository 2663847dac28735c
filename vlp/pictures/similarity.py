"""How much images and texts of a batch look like each other."""

from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from vlp.pictures.masks import sheet

SIDE = 384
"""Pixels, about."""


def similarity_matrix(images: Tensor, texts: Tensor) -> Image.Image:
    """Heat map of the cosine similarities of pairs, which lie on the diagonal: (B, E), (B, E)."""
    similarity = (images.float() @ texts.float().T).cpu()
    least, most = similarity.min().item(), similarity.max().item()
    shares = (similarity - least) / max(most - least, 1e-6)
    pixels = Image.fromarray(colormaps["viridis"](shares.numpy(), bytes=True)).convert("RGB")
    side = len(similarity) * max(1, SIDE // len(similarity))
    picture = pixels.resize((side, side), Image.Resampling.NEAREST)
    says = f"cosine from {least:.2f} (dark) to {most:.2f} (light)"
    return sheet([("images down, texts across", [(picture, says)])])
