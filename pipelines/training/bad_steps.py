"""Bad steps of a run: said in one line, and saved with all that `vlp replay` needs to run them again."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.checkpoints.checkpoint import TrainingState, write_settings
from pipelines.tracking.journal import Journal
from vlp.core.batch import Batch
from vlp.core.distributed import all_sum, is_main, rank, world_size
from vlp.core.normalization import normalize
from vlp.data.loader import Collate, Source, TrainingPairs
from vlp.data.order import Order, rank_batches
from vlp.pictures.pairs import pair_sheet
from vlp.run import RunConfig
from vlp.shards.storage.whole import unfinished, writing_folder
from vlp.tokenizers import Tokenizer
from vlp.training.bad_steps import BadStepConfig, BadStepError, Outcome
from vlp.training.step import choose_visible

FOLDER, STEP, WEIGHTS, PICTURE = "bad_steps", "step.json", "weights.pt", "images.png"
MAX_PICTURES = 64


@dataclass(frozen=True)
class Finding:
    """What is wrong with a step."""

    problem: str
    outcome: Outcome


@dataclass(frozen=True)
class BadSteps:
    """What a worker does about bad steps."""

    config: RunConfig
    output: Path
    """Folder of the run."""
    journal: Journal
    label: str
    """Begins every line that is said of the run."""
    pairs: TrainingPairs
    order: Order
    tokenizer: Tokenizer

    def handle(self, state: TrainingState, finding: Finding) -> None:
        """Save a bad step, and stop at it or say that it is skipped. A collective: every worker calls it.

        The state has to be as it was before the step, but for its history, which counts the step.

        Raises:
            BadStepError: the run is to stop.
        """
        config, history = self.config.training.on_bad_step, state.history
        is_end = config.action == "stop" or history.num_in_a_row >= config.max_in_a_row
        saved = ""
        if is_end or history.num_skipped <= config.num_saved:
            saved = f"; run it again with `vlp replay {self._save(state, finding)}`"
        said = f"step {state.step + 1}: {finding.problem}{saved}"
        if is_end:
            raise BadStepError(f"{self.config.name} stopped at {said}; {_remedy(config)}")
        if is_main():
            print(f"[{self.label}] skipped {said}", flush=True)

    def _save(self, state: TrainingState, finding: Finding) -> Path:
        """Write the folder of a step, each worker its part."""
        device = next(state.objective.parameters()).device
        folder = self.output / FOLDER / f"step_{state.step + 1:07d}"
        with writing_folder(folder) if is_main() else nullcontext():
            _wait(device)
            self._save_part(unfinished(folder), state, finding)
            _wait(device)  # for the other workers' parts
        if is_main():
            for name in (STEP, PICTURE):
                self.journal.artifact(folder / name, folder=f"{FOLDER}/{folder.name}")
        _wait(device)
        return folder

    def _save_part(self, folder: Path, state: TrainingState, finding: Finding) -> None:
        """Write this worker's part of a step, whose batch is read again: it is a function of the step."""
        config, step, device = self.config, state.step, next(state.objective.parameters()).device
        steps = range(step, step + 1)
        (draws,) = rank_batches(self.order, steps=steps, rank=rank(), world_size=world_size())
        read, _ = Collate(self.tokenizer)([self.pairs[draw] for draw in draws])
        images, tokens, lengths = (tensor.to(device) for tensor in read[:3])
        batch = Batch(normalize(images, config.data.normalization), tokens, lengths)
        slots = choose_visible(state.objective, batch, config.resolved_training, step=step, seed=config.seed)
        sources = [self.pairs.source(draw) for draw in draws]
        torch.save({"batch": read._asdict(), "slots": slots._asdict()}, folder / f"batch_{rank()}.pt")
        (folder / f"sources_{rank()}.json").write_text(json.dumps([s._asdict() for s in sources], indent=1))
        if is_main():
            self._save_once(folder, state, finding)
            masked = slots.masked(config.image_encoder.num_patches)
            _draw(images, masked, sources).save(folder / PICTURE)

    def _save_once(self, folder: Path, state: TrainingState, finding: Finding) -> None:
        write_settings(folder, replace(self.config, mask=state.mask))
        weights: dict[str, Any] = {"objective": state.objective.state_dict()}
        if state.ema and state.ema.config.chooses_masks:
            weights["chooses_masks"] = state.ema.objective.state_dict()
        torch.save(weights, folder / WEIGHTS)
        facts = {
            "problem": finding.problem,
            "loss": finding.outcome.loss,
            "grad_norm": finding.outcome.norm,
            "seed": self.config.seed,
            "step": state.step,
            "num_workers": world_size(),
            "num_parts": state.objective.num_parts,
            "device": next(state.objective.parameters()).device.type,
            "num_threads": torch.get_num_threads(),
            "matmul": state.matmul,
        }
        (folder / STEP).write_text(json.dumps(facts, indent=1))


def _remedy(config: BadStepConfig) -> str:
    calmer = "lower optimizer.lr, lengthen lr_schedule.warmup_steps or set training.max_grad_norm"
    if config.action == "stop":
        return f"{calmer}; or go on without the step by training.on_bad_step.action=skip"
    return f"training.on_bad_step.max_in_a_row {config.max_in_a_row} is reached: {calmer}"


def _draw(pixels: Tensor, masked: Tensor, sources: list[Source]) -> Any:
    captions = [f"{source.key}: {source.caption}" for source in sources[:MAX_PICTURES]]
    return pair_sheet(pixels[:MAX_PICTURES] / 255, masked[:MAX_PICTURES], captions)


def _wait(device: torch.device) -> None:
    """Until every worker is here."""
    all_sum(torch.zeros((), device=device)).item()
