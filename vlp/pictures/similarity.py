"""How much images and texts of a batch look like each other."""

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vlp.pictures.figure import draw


def similarity_matrix(images: Tensor, texts: Tensor) -> Image.Image:
    """Heat map of the cosine similarities of pairs, which lie on the diagonal: (B, E), (B, E)."""
    similarity = (images.float() @ texts.float().T).cpu().numpy()
    figure = Figure(figsize=(5.2, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(similarity, cmap="viridis")
    figure.colorbar(shown, ax=axes, label="cosine similarity")
    axes.set(xlabel="text", ylabel="image")
    return draw(figure)
