"""Zero-shot classification: an image gets the class with the most similar prompts (arXiv:2103.00020)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.outcomes import ClassRanks
from vlp.metrics.retrieval import match_ranks


def check_templates(templates: Sequence[str]) -> None:
    """Raise a ValueError unless every template has a place for the class name."""
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"a template needs {{}} where the class name goes, got {template!r}")


def class_embeddings(
    encode_text: Callable[[list[str]], Tensor], classes: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """One unit-length embedding per class, the mean over its prompts: (K, E).

    Args:
        encode_text: embeddings (prompts, E) of a list of prompts; their length does not matter.
        classes: K class names.
        templates: prompts with `{}` where the class name goes, such as `a photo of a {}.`
    """
    check_templates(templates)
    means = []
    for name in classes:
        prompts = encode_text([template.replace("{}", name) for template in templates])
        means.append(F.normalize(prompts.float(), dim=1).mean(dim=0))
    return F.normalize(torch.stack(means), dim=1)


def zero_shot_outcomes(
    image_embeddings: Tensor, labels: Tensor, class_embeddings: Tensor, *, chunk_size: int = 1024
) -> ClassRanks:
    """The rank of each image's class; a class as similar as the right one counts as preferred to it.

    Args:
        image_embeddings: (I, E), unit length.
        labels: (I,) int64 in 0..K-1.
        class_embeddings: (K, E), unit length.
        chunk_size: images compared at once.
    """
    K = len(class_embeddings)
    classes = torch.arange(K, device=labels.device)
    ranks = match_ranks(image_embeddings, class_embeddings, labels, classes, chunk_size=chunk_size)
    return ClassRanks(ranks, labels, K)
