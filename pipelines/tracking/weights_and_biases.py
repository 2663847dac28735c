"""Runs as Weights & Biases shows them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import wandb

from pipelines.tracking.journal import Record
from pipelines.tracking.tracker import Board, Tracker


class WeightsAndBiases(Tracker):
    """Sends runs to its server where one is logged in, and else writes what `wandb sync` sends later.

    A run keeps its identity, so that one that goes on is the same run there.
    """

    name = "wandb"
    title = "Weights & Biases"

    def __init__(self, *, project: str) -> None:
        self.project = project
        is_offline = os.environ.get("WANDB_MODE") == "offline" or not wandb.login(prompt=False)
        self.mode: Literal["online", "offline"] = "offline" if is_offline else "online"

    def how_to_see(self, folder: Path) -> str:
        if self.mode == "online":
            return f"project {self.project} of Weights & Biases"
        return f"wandb sync {folder}/wandb/offline-run-*"

    def board(self, folder: Path, place: str, begin: Record) -> "_Run":
        settings = wandb.Settings(
            mode=self.mode,
            root_dir=str(folder),
            init_timeout=30,
            console="off",
            silent=True,
            save_code=False,
            disable_git=True,
            x_disable_stats=True,  # measured by MLflow's, and in the journal
            x_disable_meta=True,  # the command line may hold passwords
        )
        run = wandb.init(
            project=self.project,
            id=begin.fields["uuid"],
            name=begin.fields["name"],
            resume="allow" if self.mode == "online" else None,
            reinit="create_new",
            settings=settings,
        )
        run.define_metric("*", step_metric="step")
        return _Run(run)


class _Run(Board):
    """Of Weights & Biases. It passes on at once what it is told, to a process of its own."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def numbers(self, numbers: Mapping[str, float], *, step: int, seconds: float) -> None:
        self.run.log({**numbers, "step": step})

    def picture(self, key: str, file: Path, *, step: int, seconds: float) -> None:
        self.run.log({key: wandb.Image(str(file)), "step": step})

    def settings(self, settings: Mapping[str, Any], *, seconds: float) -> None:
        self.run.config.update(dict(settings), allow_val_change=True)

    def description(self, text: str, *, seconds: float) -> None:
        self.run.summary["description"] = text

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.run.finish()
