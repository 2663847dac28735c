"""Choosing between similar captions, and between images (arXiv:2306.14610, 2204.03162, 2406.11171)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vlp.metrics.outcomes import Choices


class Choice(NamedTuple):
    """Images, and captions of which the first are those of the images, in their order."""

    images: Sequence[int]
    """Positions of I images."""
    captions: Sequence[int]
    """Positions of C captions."""
    part: str
    """Of the set."""
    paraphrases: Sequence[int] = ()
    """Positions of captions that are as right as the first, of a choice of one image."""


def choice_outcomes(
    image_embeddings: Tensor, text_embeddings: Tensor, choices: Sequence[Choice]
) -> Mapping[str, Choices]:
    """Whether images prefer their captions, and captions their images: of all choices, and by part.

    A match has to be more similar than every other candidate, in float32: ties and NaN are wrong, so a model
    that maps all to one point gets nothing right, where an argmax would give it whatever comes first. Where
    an image has paraphrases of its caption, every one of them has to be (SugarCrepe++).

    Args:
        image_embeddings: (I, E), unit length.
        text_embeddings: (C, E), unit length.
        choices: all of as many images; with paraphrases all, or none.

    Returns:
        `""` for all choices. Where there are several parts, also those of each by its name, and those of
        parts that end alike by their ending: `obj` for `add_obj` and `swap_obj`.
    """
    right = [_is_right(image_embeddings, text_embeddings, choice) for choice in choices]
    parts = list(dict.fromkeys(choice.part for choice in choices))
    everything = Choices(
        texts_right=torch.tensor([texts for texts, _ in right]),
        images_right=torch.tensor([images for _, images in right]),
        parts=torch.tensor([parts.index(choice.part) for choice in choices]),
        images=torch.tensor([choice.images[0] for choice in choices]),
        num_images=len(choices[0].images),
        paraphrases_right=torch.tensor([_are_nearest(text_embeddings, choice) for choice in choices])
        if choices[0].paraphrases
        else None,
    )
    found = {"": everything}
    if len(parts) > 1:
        names = {name: [name] for name in parts}
        for part in parts:
            if (ending := part.rpartition("_")[2]) not in parts:
                names.setdefault(ending, []).append(part)
        for name, of in names.items():
            found[name] = everything.of_parts([parts.index(part) for part in of])
    return found


def _is_right(image_embeddings: Tensor, text_embeddings: Tensor, choice: Choice) -> tuple[bool, bool]:
    """Whether every image prefers its caption, and every caption of an image this image."""
    images, captions = image_embeddings[list(choice.images)], text_embeddings[list(choice.captions)]
    similarity = images.float() @ captions.float().T  # (I, C)
    own = similarity.diagonal()
    if choice.paraphrases:
        others = text_embeddings[list(choice.paraphrases)]
        own = torch.minimum(own, (images.float() @ others.float().T).amin(dim=1))
    is_own = torch.eye(*similarity.shape, dtype=torch.bool)
    texts = ((similarity < own[:, None]) | is_own).all() & own.isfinite().all()
    of_images = similarity[:, : len(images)]
    found = ((of_images < own) | is_own[:, : len(images)]).all() & own.isfinite().all()
    return bool(texts), bool(found)


def _are_nearest(text_embeddings: Tensor, choice: Choice) -> bool:
    """Whether all captions that are right are nearer to each other than each is to any that is wrong."""
    right = text_embeddings[[choice.captions[0], *choice.paraphrases]].float()
    wrong = text_embeddings[list(choice.captions[1:])].float()
    pairs = (right @ right.T).fill_diagonal_(torch.inf)
    nearest = pairs.amin(dim=1)
    return bool((right @ wrong.T < nearest[:, None]).all() & nearest.isfinite().all())
