"""Image-text retrieval: the rank of the best match."""

import torch
from torch import Tensor

from vlp.metrics.outcomes import MatchRanks


def match_ranks(
    queries: Tensor, candidates: Tensor, query_group: Tensor, candidate_group: Tensor, *, chunk_size: int
) -> Tensor:
    """Rank, from 1, of each query's best match among all candidates.

    A candidate matches a query of its group. The rank counts the other groups' candidates that are *not less*
    similar than the best match, so ties and NaN count against the model: one that maps all to one point
    gets the worst ranks, where sorting would give it arbitrary ones.

    Args:
        queries: (Q, E), unit length.
        candidates: (M, E), unit length.
        query_group: (Q,) int64; a query without any match gets rank M + 1.
        candidate_group: (M,) int64.
        chunk_size: queries compared at once; memory is chunk_size x M.

    Returns:
        (Q,) int64.
    """
    ranks = []
    for rows, groups in zip(queries.split(chunk_size), query_group.split(chunk_size), strict=True):
        similarity = rows.float() @ candidates.float().T  # (chunk, M)
        is_match = groups[:, None] == candidate_group
        best = similarity.masked_fill(~is_match, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append(1 + (~(similarity < best) & ~is_match).sum(dim=1))
    return torch.cat(ranks)


def retrieval_outcomes(
    image_embeddings: Tensor, text_embeddings: Tensor, image_of_text: Tensor, *, chunk_size: int = 1024
) -> dict[str, MatchRanks]:
    """Ranks of both directions, `image_to_text` and `text_to_image`.

    An image is found by any of its captions.

    Args:
        image_embeddings: (I, E), unit length.
        text_embeddings: (C, E), unit length.
        image_of_text: (C,) int64 in 0..I-1, the image each caption describes; every image needs a caption.
        chunk_size: queries compared at once.
    """
    images = torch.arange(len(image_embeddings), device=image_of_text.device)
    if not torch.equal(image_of_text.unique(), images):
        raise ValueError(
            f"image_of_text must name each of the {len(images)} images, and no other, at least once"
        )
    ranks = {
        "image_to_text": match_ranks(
            image_embeddings, text_embeddings, images, image_of_text, chunk_size=chunk_size
        ),
        "text_to_image": match_ranks(
            text_embeddings, image_embeddings, image_of_text, images, chunk_size=chunk_size
        ),
    }
    return {
        "image_to_text": MatchRanks(ranks["image_to_text"]),
        "text_to_image": MatchRanks(ranks["text_to_image"], images=image_of_text),
    }
