"""Zero-shot classification: an image gets the class with the most similar prompts (arXiv:2103.00020)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.outcomes import ClassRanks, Detections
from vlp.metrics.retrieval import MAX_SIMILARITIES, match_ranks


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
    prompts = encode_text([template.replace("{}", name) for name in classes for template in templates])
    of_classes = F.normalize(prompts.float(), dim=1).unflatten(0, (len(classes), len(templates)))
    return F.normalize(of_classes.mean(dim=1), dim=1)


def zero_shot_outcomes(
    image_embeddings: Tensor,
    labels: Tensor,
    class_embeddings: Tensor,
    *,
    among: Sequence[int] | None = None,
    max_similarities: int = MAX_SIMILARITIES,
) -> ClassRanks:
    """The rank of each image's class; a class as similar as the right one counts as preferred to it.

    Args:
        image_embeddings: (I, E), unit length.
        labels: (I,) int64 in 0..K-1.
        class_embeddings: (K, E), unit length.
        among: classes that an image may be of, all others are masked; None for all.
        max_similarities: held in memory at once, but those of one image at least.
    """
    classes = torch.arange(len(class_embeddings)) if among is None else torch.tensor(among)
    found = match_ranks(
        image_embeddings,
        class_embeddings[classes],
        labels,
        classes.to(labels.device),
        max_similarities=max_similarities,
    )
    guesses = classes.to(labels.device)[found.firsts]
    return ClassRanks(found.ranks, labels, len(classes), guesses=guesses)


def out_of_distribution_outcomes(
    image_embeddings: Tensor, labels: Tensor, class_embeddings: Tensor, *, temperature: float
) -> Detections:
    """How unsure the classifier is of each image, those included that show none of the classes.

    It is unsure where the most probable class has a low probability (arXiv:1610.02136), as ImageNet-O is
    measured (arXiv:1907.07174).

    Args:
        image_embeddings: (I, E), unit length.
        labels: (I,) int64 in 0..K-1, or -1 for an image of another kind.
        class_embeddings: (K, E), unit length.
        temperature: of the softmax over the similarities.
    """
    similarity = image_embeddings.double() @ class_embeddings.double().T
    return Detections(-(similarity / temperature).softmax(dim=1).amax(dim=1), labels < 0)
