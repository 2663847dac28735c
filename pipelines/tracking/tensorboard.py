"""Runs as TensorBoard shows them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from pipelines.tracking.journal import Record
from pipelines.tracking.tracker import Board, Tracker


class TensorBoard(Tracker):
    """Writes events, which `tensorboard` reads."""

    name = "tensorboard"
    title = "TensorBoard"

    def how_to_see(self, folder: Path) -> str:
        return f"tensorboard --logdir {folder}"

    def board(self, folder: Path, place: str, begin: Record) -> "_Events":
        # Its files are named by seconds, and one that goes on within the second must not replace the last.
        return _Events(SummaryWriter(str(folder / place), filename_suffix=f".{time.time_ns()}"))


class _Events(Board):
    """Of one run."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def numbers(self, numbers: Mapping[str, float], *, step: int, seconds: float) -> None:
        for key, value in numbers.items():
            self.writer.add_scalar(key, value, step, walltime=seconds)

    def picture(self, key: str, file: Path, *, step: int, seconds: float) -> None:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        self.writer.add_image(key, pixels, step, walltime=seconds, dataformats="HWC")

    def settings(self, settings: Mapping[str, Any], *, seconds: float) -> None:
        rows = [f"| {key} | {value} |" for key, value in settings.items()]
        table = "\n".join(["| setting | value |", "|---|---|", *rows])
        self.writer.add_text("settings", table, walltime=seconds)

    def description(self, text: str, *, seconds: float) -> None:
        self.writer.add_text("description", text, walltime=seconds)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
