"""A saved bad step, run again: where in the model the trouble is."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.checkpoints.checkpoint import read_run
from pipelines.config.errors import UserError, blaming
from pipelines.training.bad_steps import STEP, WEIGHTS
from pipelines.training.masks import show_all
from pipelines.training.resolved import document_frequency
from vlp.checkpoint import SETTINGS
from vlp.core.batch import Batch
from vlp.core.normalization import normalize
from vlp.masking import Slots
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.training.cpu import prepare_cpu_training
from vlp.training.ema import EMA
from vlp.training.step import choose_visible, forward


class BadStep(NamedTuple):
    """A step as it was saved."""

    run: RunConfig
    facts: dict[str, Any]
    objective: Objective
    batch: Batch
    """Of all workers."""
    slots: list[Slots]
    """Of each worker."""


class Replay(NamedTuple):
    """What came of the step this time."""

    saved_loss: float
    loss: float
    metrics: dict[str, float]
    grad_norm: float
    gradients: dict[str, float]
    """Parameter -> norm of its gradient."""
    broken_weights: list[str]
    """Parameters that held other than finite numbers before the step."""
    first_broken: str | None
    """The first module that made other than finite numbers of finite ones."""
    has_same_masks: bool


def replay(folder: Path, *, anomaly: bool = False) -> Replay:
    """Run a saved step again: forward and backward, in one process.

    After one worker on the same kind of device, the loss is the same to the bit; after several, but for
    rounding and for dropped paths.

    Args:
        anomaly: have autograd name the operation whose gradient is the first that is not a number.

    Raises:
        UserError: the folder holds no saved step.
        RuntimeError: what autograd found.
    """
    saved = read_bad_step(folder)
    objective, batch, step, seed = saved.objective, saved.batch, saved.facts["step"], saved.run.seed
    first_broken = _watch(objective)
    slots = choose_visible(objective, batch, saved.run.resolved_training, step=step, seed=seed)
    with torch.autograd.detect_anomaly() if anomaly else nullcontext():
        loss, metrics = forward(objective, batch, saved.run.resolved_training, step=step, seed=seed)
        loss.backward()
    gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    return Replay(
        saved_loss=saved.facts["loss"],
        loss=loss.item(),
        metrics={name: value.item() for name, value in metrics.items()},
        grad_norm=nn.utils.get_total_norm(list(gradients.values())).item(),
        gradients={name: gradient.norm().item() for name, gradient in gradients.items()},
        broken_weights=[name for name, p in objective.named_parameters() if not _is_finite(p)],
        first_broken=next(iter(first_broken), None),
        has_same_masks=_are_equal(slots, saved.slots),
    )


def read_bad_step(folder: Path) -> BadStep:
    """A saved step, with its model on the kind of device that it was computed on, if there is one here.

    Raises:
        UserError: the folder holds no saved step, or the file of its tokenizer or of its codes is missing.
    """
    for name in (STEP, WEIGHTS, SETTINGS):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not a saved step: it has no {name}; choose a folder of a run's bad_steps/"
            )
    facts, run = json.loads((folder / STEP).read_text()), read_run(folder)
    with blaming():
        run.check_files()
    device = torch.device(facts["device"] if torch.cuda.is_available() else "cpu")
    parts = [
        torch.load(folder / f"batch_{i}.pt", map_location=device, weights_only=True)
        for i in range(facts["num_workers"])
    ]
    torch.set_num_threads(facts["num_threads"])  # sums depend on it in the last bit
    batch = _join([part["batch"] for part in parts])
    batch = batch._replace(images=normalize(batch.images, run.data.normalization))
    return BadStep(
        run,
        facts,
        _model(folder, run, facts, device),
        batch,
        [Slots(**part["slots"]) for part in parts],
    )


def _model(folder: Path, run: RunConfig, facts: dict[str, Any], device: torch.device) -> Objective:
    weights = torch.load(folder / WEIGHTS, map_location=device, weights_only=True)
    tokenizer = run.tokenizer.build()
    table = document_frequency(run, tokenizer) if run.text_mask.needs_token_counts else None
    objective = run.build(run.vocabulary(tokenizer, table)).to(device)
    if "chooses_masks" in weights:
        assert run.training.ema
        EMA(objective, run.training.ema).objective.load_state_dict(weights["chooses_masks"])
    objective.load_state_dict(weights["objective"])
    if device.type == "cpu":
        prepare_cpu_training(objective, matmul=facts["matmul"])
    objective.num_parts = facts["num_parts"]
    if facts["step"] >= run.num_masked_steps:
        show_all(objective)
    return objective


def _join(parts: list[dict[str, Tensor]]) -> Batch:
    """The workers' rows one after another; each padded its captions to its own longest."""
    longest = max(part["tokens"].shape[1] for part in parts)
    tokens = [F.pad(part["tokens"], (0, longest - part["tokens"].shape[1])) for part in parts]
    images, lengths = (torch.cat([part[key] for part in parts]) for key in ("images", "lengths"))
    return Batch(images, torch.cat(tokens), lengths)


def _watch(objective: Objective) -> list[str]:
    """A list that is filled with the modules that make no finite numbers of finite ones, the inner first."""
    found: list[str] = []

    def look(name: str, inputs: Any, output: Any) -> None:
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        if isinstance(output, Tensor) and not _is_finite(output) and all(map(_is_finite, tensors)):
            found.append(name)

    for name, module in objective.named_modules():
        if name:
            module.register_forward_hook(lambda _, inputs, output, name=name: look(name, inputs, output))
    return found


def _is_finite(x: Tensor) -> bool:
    return bool(x.isfinite().all())


def _are_equal(slots: Slots, parts: list[Slots]) -> bool:
    saved = torch.cat([part.keep_indices for part in parts])
    return torch.equal(slots.keep_indices, saved)
