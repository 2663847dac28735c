"""`vlp export`: a trained model for another library."""

from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read, settings_command


@settings_command("export")
@click.option(
    "--format", "format_name", required=True, help="timm, open_clip, huggingface, onnx or safetensors."
)
@click.option("-o", "--output", type=LOCAL, required=True, help="Folder of the model.")
def export(settings: tuple[str, ...], format_name: str, output: Path) -> None:
    """Write a checkpoint for timm, open_clip, transformers, ONNX runtimes, or as plain safetensors.

    With weights, configuration, preprocessing, tokenizer where the format has one, and a model card.

    Example: vlp export checkpoint=results/pretrain/clip-1a2b3c4d --format open_clip -o clip_open_clip
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.evaluation.export import ExportConfig, export_checkpoint

    config = build(ExportConfig, layers)
    export_checkpoint(config, output, format=format_name, machine=machine)
    click.echo(f"[export] -> {output}")
