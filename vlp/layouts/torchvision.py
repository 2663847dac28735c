"""What torchvision's data sets keep on a disk: CIFAR, MNIST, Oxford-IIIT Pet, Food-101 and others."""

import inspect
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlp.layouts.layout import LAYOUTS, Example, Labelled, Layout, folder_of, read_names

SPLITS = {"train": ("train", "trainval"), "test": ("test", "val")}


@LAYOUTS.register
@dataclass(frozen=True, kw_only=True)
class TorchVision(Layout):
    """One of torchvision's data sets of classes, as it downloads it; images are kept as PNG, without loss."""

    name: Literal["torchvision"] = "torchvision"
    dataset: str
    """Its class in torchvision.datasets, such as CIFAR10 or OxfordIIITPet."""
    folder: Path
    """Its `root`: the folder in which torchvision put it."""
    names: Path | None = None
    """JSON file of `classes`, in the order of their indices, and perhaps `templates`; None has its own."""

    def read(self) -> Labelled:
        test, train = self._open("test"), self._open("train")
        classes = getattr(test, "classes", None)
        if classes is None:
            if self.names is None:
                raise ValueError(
                    f"names: torchvision's {self.dataset} does not name its classes; give a file of them"
                )
            classes = range(1 + max(label for _, label in test))
        meta = read_names(self.names, [str(name) for name in classes])
        return Labelled({"train": _examples(train), "test": _examples(test)}, meta)

    def _open(self, split: str) -> Any:
        from torchvision import datasets

        kind: Any = getattr(datasets, self.dataset, None)
        takes = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
        if "root" not in takes or not {"train", "split"} & set(takes):
            raise ValueError(
                f"dataset is {self.dataset!r}; torchvision has no set of train and test images so"
            )
        root = folder_of(self.folder, "folder")
        choices = (
            [{"train": split == "train"}] if "train" in takes else [{"split": name} for name in SPLITS[split]]
        )
        problem = ""
        for choice in choices:
            try:
                return kind(root, **choice)  # pyright: ignore[reportCallIssue]
            except (ValueError, RuntimeError, OSError) as error:
                problem = problem or str(error).splitlines()[0]
        raise ValueError(f"folder: {root} does not hold {self.dataset}: {problem}")


def _examples(dataset: Any) -> Iterator[Example]:
    for number, (image, label) in enumerate(dataset):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        yield Example(stream.getvalue(), int(label), f"{number:06d}.png")
