"""COCO's captions: a JSON file of `images` and `annotations`, and a folder of images."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlp.layouts.layout import LAYOUTS, Captioned, Layout, examples_of, folder_of, read_json


@LAYOUTS.register
@dataclass(frozen=True, kw_only=True)
class CocoCaptions(Layout):
    """Images with all their captions, in the order of the file; images without any are left out."""

    name: Literal["coco_captions"] = "coco_captions"
    annotations: Path
    """Such as annotations/captions_val2017.json."""
    images: Path
    """Folder of the images."""

    def read(self) -> Captioned:
        folder, content = folder_of(self.images, "images"), read_json(self.annotations, "annotations")
        captions: dict[int, list[str]] = defaultdict(list)
        try:
            for one in content["annotations"]:
                captions[one["image_id"]].append(one["caption"])
            files = {one["id"]: one["file_name"] for one in content["images"]}
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"annotations: {self.annotations} is not of COCO's form: it lacks {error}"
            ) from error
        pairs = ((folder / file, captions[key]) for key, file in files.items() if key in captions)
        return Captioned(examples_of(folder, pairs))
