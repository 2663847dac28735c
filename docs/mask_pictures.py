"""Draw what each mask hides of four generated scenes: `python docs/mask_pictures.py`, for docs/masks.md."""

from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image

from pipelines.config.machine import MachineConfig
from pipelines.training.mask_runs import registered_runs
from pipelines.training.mask_study import Models, Photo, Study
from vlp.pictures.mask_sheets import Column, hidden_sheet
from vlp.tiny_world import TinyWorldConfig
from vlp.tiny_world.corpus import draw_split
from vlp.tiny_world.render import render

IMAGES = Path(__file__).parent / "images"
SIZE = 224


def main() -> None:
    """Write `images/mask_NAME.png` for every registered mask that hides something."""
    scenes = islice(draw_split(TinyWorldConfig(), "heldout"), 4)
    photos = tuple(Photo("", render(scene, rng, image_size=SIZE).picture) for scene, rng in scenes)
    models = Models(MachineConfig())
    studies = [Study(run, photos, models) for run in registered_runs([])]
    for name in dict.fromkeys(study.mask.name for study in studies):
        own = [study for study in studies if study.mask.name == name]
        columns = [Column(study.run.name, study.squares / 255, study.look(0.5)) for study in own]
        write(hidden_sheet(columns), IMAGES / f"mask_{name}.png")


def write(picture: Image.Image, file: Path) -> None:
    """A small file: 64 colours are enough for shapes."""
    packed = BytesIO()
    picture.resize([side * 2 // 3 for side in picture.size]).quantize(64).save(packed, "PNG", optimize=True)
    file.write_bytes(packed.getvalue())


if __name__ == "__main__":
    main()
