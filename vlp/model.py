"""A trained model to use: images and texts to vectors, in a notebook or a service."""

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vlp.checkpoint import find_checkpoint, load_objective, read_run
from vlp.core.normalization import normalize
from vlp.data.transforms import center_crop, decode, to_tensor
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.tokenizers import Tokenizer


def load(folder: str | Path, *, device: str | torch.device = "cpu", plugins: Collection[str] = ()) -> "Model":
    """The model of a checkpoint, or of the last checkpoint of a finished run.

    Args:
        folder: of a checkpoint, or of a run.
        plugins: modules of one's own that the checkpoint may import, such as ("my_package.masks",).

    Raises:
        ValueError: there is no checkpoint, a file that it needs is missing, its weights are those of other
            settings, or it names a plug-in that is not among `plugins`.
    """
    checkpoint, place = find_checkpoint(Path(folder)), torch.device(device)
    config = read_run(checkpoint, plugins=plugins)
    config.check_files()
    with torch.random.fork_rng(devices=[]):  # the weights are drawn before they are read
        return Model(load_objective(checkpoint, config, place), config)


class Model:
    """A trained model with what its inputs need.

    Example::

        model = vlp.load("results/pretrain/clip-1a2b3c4d")
        images = model.preprocess(Image.open("cat.jpg"))[None]
        scores = model.encode_image(images) @ model.encode_text(*model.tokenize(["a cat", "a dog"])).T
    """

    def __init__(self, objective: Objective, config: RunConfig) -> None:
        self.objective = objective
        """The module with the weights, in evaluation mode."""
        self.config = config
        """The run that it comes from."""

    @property
    def device(self) -> torch.device:
        """Where the weights are; inputs may be elsewhere."""
        return next(self.objective.parameters()).device

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What the captions were tokenized by."""
        return self.config.tokenizer.build()

    def preprocess(self, image: Image.Image | bytes) -> Tensor:
        """The middle square of an image, as in evaluations: a picture or encoded bytes -> (3, H, W) float.

        Raises:
            ValueError, OSError: the bytes are not an image, or break off.
        """
        picture = decode(image) if isinstance(image, bytes) else image.convert("RGB")
        pixels = to_tensor(center_crop(picture, self.config.image_encoder.image_size))
        return normalize(pixels[None], self.config.data.normalization)[0]

    def tokenize(self, texts: str | Sequence[str]) -> tuple[Tensor, Tensor]:
        """One text or several -> tokens (B, T) int64 and lengths (B,) int64, as `Tokenizer.encode`."""
        return self.tokenizer.encode(texts)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What evaluations of frozen features read: (B, 3, H, W), as `preprocess` makes them, -> (B, D)."""
        return self.objective.features(images.to(self.device))

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Unit-length embeddings in the space that texts share: (B, 3, H, W) -> (B, E).

        Raises:
            TypeError: the objective learns no such space.
        """
        return self.objective.encode_image(images.to(self.device))

    @torch.no_grad()
    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Unit-length embeddings in the space that images share: what `tokenize` gives -> (B, E).

        Raises:
            TypeError: the objective learns no such space.
        """
        return self.objective.encode_text(tokens.to(self.device), lengths.to(self.device))
