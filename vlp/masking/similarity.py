"""How much patches look like each other: by their pixels, by their embeddings, or by both."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.masking.strategy import MaskInputs


class AnchorRows(NamedTuple):
    """The rows of the similarity matrices that belong to the anchors."""

    anchors: Tensor
    """(B, A) int64."""
    rgb: Tensor | None
    """(B, A, N) cosine similarity of pixels; None where no alpha needs it."""
    embedding: Tensor | None
    """(B, A, N) cosine similarity of embedded patches; None where no alpha needs it."""

    def mixed(self, alpha: float) -> Tensor:
        """Both similarities, with the share alpha of the embeddings: (B, A, N)."""
        shares = ((1 - alpha, self.rgb), (alpha, self.embedding))
        rows = sum(share * rows for share, rows in shares if share > 0 and rows is not None)
        assert isinstance(rows, Tensor)
        return rows

    def simplicity(self, alpha: float) -> Tensor:
        """How much patches look like their image's nearest anchor, in the mean: (B,), in [-1, 1].

        High where few clusters of patches that look alike make up the image.
        """
        return self.mixed(alpha).amax(dim=1).mean(dim=1)

    def nearest(self, alpha: float) -> Tensor:
        """How much each patch looks like its image's nearest anchor: (B, N), infinite for the anchors."""
        return self.mixed(alpha).amax(dim=1).scatter(1, self.anchors, torch.inf)

    def clusters(self, alpha: float) -> Tensor:
        """Which anchor each patch looks like most: (B, N) int64 in 0..A-1; an anchor its own."""
        own = torch.arange(self.anchors.shape[1], device=self.anchors.device).expand_as(self.anchors)
        return self.mixed(alpha).argmax(dim=1).scatter(1, self.anchors, own)


def compare_to_anchors(
    inputs: MaskInputs, anchors: Tensor, *, alphas: Sequence[float], pixel_norm: bool
) -> AnchorRows:
    """Whatever similarities the mixes by these alphas are made of, for anchors (B, A)."""
    rgb, embedding = None, None
    if min(alphas) < 1:
        name = "directions of standardized patches" if pixel_norm else "directions of patches"
        rgb = cosine_rows(inputs.kept(name, lambda: _pixel_directions(inputs, pixel_norm)), anchors)
    if max(alphas) > 0:
        tokens = inputs.kept("directions of tokens", lambda: directions(inputs.tokens))
        embedding = cosine_rows(tokens, anchors)
    return AnchorRows(anchors, rgb, embedding)


def _pixel_directions(inputs: MaskInputs, pixel_norm: bool) -> Tensor:
    return directions(standardize_patches(inputs.patches) if pixel_norm else inputs.patches)


def directions(features: Tensor) -> Tensor:
    """Vectors of length 1, in float32 whatever the autocast: (B, N, D) -> (B, N, D)."""
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=2)


def cosine_rows(unit: Tensor, anchors: Tensor) -> Tensor:
    """Cosine similarity of the anchors to every patch: (B, N, D) of length 1, (B, A) -> (B, A, N) float32.

    Only the anchors' rows of the similarity matrix are computed.
    """
    with torch.autocast(unit.device.type, enabled=False):
        rows = unit.gather(1, anchors[:, :, None].expand(-1, -1, unit.shape[2]))
        return rows @ unit.transpose(1, 2)


def standardize_patches(patches: Tensor) -> Tensor:
    """Zero mean and unit (unbiased) variance of each patch (section 3.2): (B, N, P) -> (B, N, P) float32."""
    mean, deviation = patch_moments(patches)
    return (patches.float() - mean) / deviation


def patch_moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (unbiased) deviation of each patch: (B, N, P) -> (B, N, 1) float32 each."""
    variance, mean = torch.var_mean(patches.float(), dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()
