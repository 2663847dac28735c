"""The first steps of trials: what decides them, so that those which all trials share are trained once."""

from typing import Any

from pipelines.config.identity import fingerprint
from pipelines.config.settings import to_dict
from vlp.masking.schedule import ratio_at
from vlp.run import RunConfig

LATER = ("name", "evaluation", "lr_schedule", "tuning")
"""Settings that say nothing of a step but what is looked at by itself, or do not change the result."""


def first_steps(run: RunConfig, steps: int) -> str:
    """What decides so many first steps of a run, as one text: runs with the same have the same checkpoint
    after them, of weights and optimizer."""
    settings = {key: value for key, value in to_dict(run).items() if key not in LATER}
    for key in ("lr", "lr_batch_size"):
        del settings["optimizer"][key]
    del settings["training"]["length"]
    settings["mask"] = _mask(run, min(steps, run.num_masked_steps))
    return fingerprint(settings, [run.learning_rate(step) for step in range(steps)])


def _mask(run: RunConfig, steps: int) -> dict[str, Any]:
    """What decides the mask of so many steps: what changes with the training, by what it is in each."""
    mask, total = run.mask, run.num_masked_steps
    settings = {key: value for key, value in to_dict(mask).items() if key not in mask.unused}
    settings |= {"steps": steps, "num_visible": mask.num_visible(run.image_encoder.num_patches)}
    if not mask.is_calibrated:
        return settings | {"total": total}  # what is searched for depends on all of the training
    moments = [step / total for step in range(steps)]
    ratios = {key: [ratio_at(ratio, moment) for moment in moments] for key, ratio in mask.ratios.items()}
    return settings | ratios | {"state": [mask.state(moment) for moment in moments]}
