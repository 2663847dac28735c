"""Zero-shot classification: an image gets the class with the most similar prompts (arXiv:2103.00020)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.retrieval import match_ranks


def class_embeddings(
    encode_text: Callable[[list[str]], Tensor], classes: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """One unit-length embedding per class, the mean over its prompts: (K, E).

    Args:
        encode_text: embeddings (prompts, E) of a list of prompts; their length does not matter.
        classes: K class names.
        templates: prompts with `{}` where the class name goes, such as `a photo of a {}.`
    """
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"a template needs {{}} where the class name goes, got {template!r}")
    means = []
    for name in classes:
        prompts = encode_text([template.replace("{}", name) for template in templates])
        means.append(F.normalize(prompts.float(), dim=1).mean(dim=0))
    return F.normalize(torch.stack(means), dim=1)


def zero_shot_metrics(
    image_embeddings: Tensor, labels: Tensor, class_embeddings: Tensor, *, chunk_size: int = 1024
) -> dict[str, float]:
    """Accuracies in [0, 1]; a class as similar as the right one counts as preferred to it.

    `zero_shot/acc5` is reported only where there are more than five classes. The mean per-class recall is
    over the classes that have images.

    Args:
        image_embeddings: (I, E), unit length.
        labels: (I,) int64 in 0..K-1.
        class_embeddings: (K, E), unit length.
        chunk_size: images compared at once.
    """
    K = len(class_embeddings)
    classes = torch.arange(K, device=labels.device)
    rank = match_ranks(image_embeddings, class_embeddings, labels, classes, chunk_size=chunk_size)
    is_right = (rank <= 1).double()
    images_of_class = labels.bincount(minlength=K)
    recall = is_right.new_zeros(K).index_add(0, labels, is_right) / images_of_class
    metrics = {"zero_shot/acc1": is_right.mean().item()}
    if K > 5:
        metrics["zero_shot/acc5"] = (rank <= 5).double().mean().item()
    return metrics | {"zero_shot/mean_per_class_recall": recall[images_of_class > 0].mean().item()}
