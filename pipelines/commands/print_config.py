"""`vlp print-config`: settings with every default filled in."""

from typing import TYPE_CHECKING

import click

from pipelines.commands.group import read, settings_command

if TYPE_CHECKING:
    from vlp.run import RunConfig


@settings_command("print-config")
def print_config(settings: tuple[str, ...]) -> None:
    """Show a run, pipeline or sweep with every default filled in.

    Example: vlp print-config conf/run/flip.yaml mask.mask_ratio=0.75
    """
    layers, machine = read(settings)
    import yaml

    from pipelines.commands.schemas import parse_any
    from pipelines.config.settings import to_dict

    config, runs = parse_any(layers, machine)
    resolved = to_dict(config) | {"machine": to_dict(machine)}
    remarks = "".join(f"# {run.name}: {line}\n" for run in runs for line in _remarks(run))
    click.echo(yaml.safe_dump(resolved, sort_keys=False) + remarks, nl=False)


def _remarks(run: "RunConfig") -> list[str]:
    """What follows from settings and is none: steps that a length pays for, a scaled rate."""
    from vlp.run import slots_per_image

    lines, length, pairs = [], run.training.length, run.training.batch_size
    if run.needs_visible_patches:
        lines.append(
            f"training.length.visible_tokens {length.amount:g} pays for steps by what the mask shows, which "
            f"is measured before the first one: at most {slots_per_image(run)} patches of an image"
        )
    elif length.needs_pace:
        lines.append(
            f"training.length.seconds {length.amount:g} pays for steps at the pace that is measured before "
            "the first one"
        )
    elif length.measure != "steps":
        lines.append(
            f"training.length.{length.measure} {length.amount:g} pays for {run.num_masked_steps:,} steps "
            f"of {pairs:,} pairs"
        )
    if run.lr_scale != 1:
        lr, meant = run.optimizer.lr, run.optimizer.lr_batch_size
        lines.append(
            f"optimizer.lr {lr:g} is meant for batches of {meant:,} (optimizer.lr_batch_size): "
            f"{lr * run.lr_scale:g} for those of {pairs:,}"
        )
    return lines
