"""A package of one's own, as a user writes it elsewhere: the README's mask, and an objective."""

import re
from pathlib import Path

from tests.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
MASK = next(
    code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "CheckerboardMask" in code
)
OBJECTIVE = '''"""The mean colour of an image, told from what is visible of it."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from vlp.objectives import OBJECTIVES, Objective, ObjectiveConfig, Step


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MeanColourConfig(ObjectiveConfig):
    name: Literal["mean_colour"] = "mean_colour"
    scale: float = 1.0

    def build(self, image_encoder, mask, *, vocabulary):
        return MeanColour(self, image_encoder, mask)


class MeanColour(Objective):
    def __init__(self, config, image_encoder, mask):
        super().__init__()
        self.config = config
        self.mask = mask
        self.image_encoder = image_encoder
        self.head = nn.Linear(image_encoder.width, 3)

    def encode(self, batch, slots):
        return (self.head(self.image_encoder(batch.images, slots)[:, 0]),)

    def loss(self, outputs, batch, slots):
        wanted = self.config.scale * batch.images.mean(dim=(2, 3))
        return Step((outputs[0] - wanted).square().mean(), {})

    def features(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)[:, 0]
'''


def write_package(folder: Path, name: str = "my_package") -> Path:
    """`NAME.masks` and `NAME.objectives` in a folder, which is returned."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    (folder / name / "masks.py").write_text(MASK)
    (folder / name / "objectives.py").write_text(OBJECTIVE)
    return folder
