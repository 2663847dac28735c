"""A checkpoint for another library, with what was measured of it on its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.checkpoints.checkpoint import find_checkpoint
from pipelines.config.errors import ConfigError, UserError
from pipelines.config.machine import MachineConfig
from pipelines.evaluation.evaluate import EvaluationManifest
from pipelines.tracking.held import held
from vlp.core.config import StrictConfig
from vlp.core.markdown import markdown_table
from vlp.export import export
from vlp.metrics.intervals import Interval
from vlp.model import load
from vlp.shards.manifest import MANIFEST


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StrictConfig):
    """Which model is exported."""

    checkpoint: Path
    """Folder of a checkpoint, or of a run, whose last one is taken; or what MLflow holds, as runs:/RUN_ID or
    models:/NAME/VERSION."""
    plugins: tuple[str, ...] = ()
    """Modules of one's own, beside those that the checkpoint names."""


def export_checkpoint(config: ExportConfig, output: Path, *, format: str, machine: MachineConfig) -> None:
    """Write a checkpoint's model for another library.

    Raises:
        ConfigError: the format cannot hold it.
        UserError: the library that writes the format is not installed.
    """
    checkpoint = find_checkpoint(held(config.checkpoint, machine))
    model = load(checkpoint, plugins=config.plugins)
    try:
        export(model, output, format=format, results=_results(checkpoint))
    except ValueError as error:
        raise ConfigError(f"--format: {error}") from error
    except ModuleNotFoundError as error:
        raise UserError(
            f"--format: {format} needs {error.name}; install it: pip install 'vlp[export]'"
        ) from error


def _results(checkpoint: Path) -> str:
    """The metrics of an evaluation beside the checkpoint, with their intervals; "" where there is none."""
    folder = checkpoint.parent / "evaluation"
    if not (folder / MANIFEST).is_file():
        return ""
    measured = EvaluationManifest.read(folder)
    return _table(measured.metrics, measured.intervals)


def _table(metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    rows = [
        [key, f"{value:.4f}", f"{intervals[key].low:.4f} to {intervals[key].high:.4f}"]
        for key, value in metrics.items()
    ]
    return markdown_table(["metric", "value", "95 % interval"], rows)
