"""`vlp print-config`: settings with every default filled in."""

import click

from pipelines.commands.group import read, settings_command


@settings_command("print-config")
def print_config(settings: tuple[str, ...]) -> None:
    """Show a run, pipeline or sweep with every default filled in.

    Example: vlp print-config conf/run/flip.yaml mask.mask_ratio=0.75
    """
    layers, machine = read(settings)
    import yaml

    from pipelines.commands.schemas import parse_any, remarks
    from pipelines.config.settings import to_dict

    config = parse_any(layers, machine)
    resolved = to_dict(config) | {"machine": to_dict(machine)}
    click.echo(yaml.safe_dump(resolved, sort_keys=False) + remarks(config), nl=False)
