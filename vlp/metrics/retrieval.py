"""Image-text retrieval: the rank of the best match, and what came first."""

import torch
from torch import Tensor

from vlp.metrics.outcomes import MatchRanks
from vlp.metrics.ranks import Ranked, ranked

MAX_SIMILARITIES = 1 << 23
"""Of queries and candidates at once: some 100 MB, whatever the size of a set."""


def match_ranks(
    queries: Tensor,
    candidates: Tensor,
    query_group: Tensor,
    candidate_group: Tensor,
    *,
    max_similarities: int = MAX_SIMILARITIES,
) -> Ranked:
    """Rank, from 1, of each query's best match among all candidates, and the candidate that comes first.

    A candidate matches a query of its group. Ties and NaN count against the model, as `ranked` says.

    Args:
        queries: (Q, E), unit length.
        candidates: (M, E), unit length.
        query_group: (Q,) int64; a query without any match gets rank M + 1.
        candidate_group: (M,) int64.
        max_similarities: held in memory at once, but those of one query at least.
    """
    parts, chunk_size = [], max(1, max_similarities // len(candidates))
    for rows, groups in zip(queries.split(chunk_size), query_group.split(chunk_size), strict=True):
        similarity = rows.float() @ candidates.float().T  # (chunk, M)
        parts.append(ranked(similarity, groups[:, None] == candidate_group))
    return Ranked(*(torch.cat(part) for part in zip(*parts, strict=True)))


def retrieval_outcomes(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    image_of_text: Tensor,
    *,
    max_similarities: int = MAX_SIMILARITIES,
) -> dict[str, MatchRanks]:
    """Ranks of both directions, `image_to_text` and `text_to_image`.

    An image is found by any of its captions.

    Args:
        image_embeddings: (I, E), unit length.
        text_embeddings: (C, E), unit length.
        image_of_text: (C,) int64 in 0..I-1, the image each caption describes; every image needs a caption.
        max_similarities: held in memory at once, but those of one query at least.
    """
    images = torch.arange(len(image_embeddings), device=image_of_text.device)
    if not torch.equal(image_of_text.unique(), images):
        raise ValueError(
            f"image_of_text must name each of the {len(images)} images, and no other, at least once"
        )
    both = [(image_embeddings, images), (text_embeddings, image_of_text)]
    (of_images, of_texts) = (
        match_ranks(queries, candidates, group, others, max_similarities=max_similarities)
        for (queries, group), (candidates, others) in (both, both[::-1])
    )
    return {
        "image_to_text": MatchRanks(of_images.ranks, firsts=of_images.firsts),
        "text_to_image": MatchRanks(of_texts.ranks, firsts=of_texts.firsts, images=image_of_text),
    }
