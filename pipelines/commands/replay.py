"""`vlp replay`: a bad step of a run, run again. Everything heavy is imported within the command."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.group import LOCAL

if TYPE_CHECKING:
    from pipelines.training.replay import Replay

SHOWN = 10
"""Gradients that are listed, the largest."""


@click.command("replay")
@click.argument("folder", type=LOCAL)
@click.option("--anomaly", is_flag=True, help="Have autograd name the operation whose gradient is none.")
def replay(folder: Path, anomaly: bool) -> None:
    """Run a bad step of a training again, to see where in the model the trouble is.

    FOLDER is one of those that a run makes in its bad_steps/: with the step's batch, masks and weights, and a
    picture of its images and captions.

    Example: vlp replay results/pretrain/clip-1a2b3c4d/bad_steps/step_0000123
    """
    from pipelines.training.replay import replay

    try:
        found = replay(folder, anomaly=anomaly)
    except RuntimeError as error:
        if not anomaly or "nan values" not in str(error):
            raise
        click.echo(f"autograd: {error}", err=True)  # it has warned with the place in the forward pass
        sys.exit(1)
    for line in _lines(found):
        click.echo(line)


def _lines(found: "Replay") -> list[str]:
    is_same = found.loss == found.saved_loss or (math.isnan(found.loss) and math.isnan(found.saved_loss))
    lines = [
        f"loss           {found.loss!r}, {'as' if is_same else f'not {found.saved_loss!r} as'} in the run",
        *(f"{name:14} {value:.6g}" for name, value in found.metrics.items()),
        f"gradient norm  {found.grad_norm!r}",
        f"masks          {'as in the run' if found.has_same_masks else 'not those of the run'}",
    ]
    if found.broken_weights:
        names = found.broken_weights
        lines.append(f"{len(names)} parameters were not finite before the step, first {names[0]}")
    if found.first_broken:
        lines.append(f"first module whose output is not finite though its input is: {found.first_broken}")
    broken = sum(not math.isfinite(norm) for norm in found.gradients.values())
    lines.append(f"gradients of {broken} of {len(found.gradients)} parameters are not finite; the largest:")
    largest = sorted(found.gradients.items(), key=lambda item: -_size(item[1]))[:SHOWN]
    return [*lines, *(f"  {norm:<12.6g} {name}" for name, norm in largest)]


def _size(norm: float) -> float:
    return math.inf if math.isnan(norm) else norm
