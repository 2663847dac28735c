"""The page of a pipeline's results, which leads to everything that it made."""

from pathlib import Path

from pipelines.reports.comparison import Comparison
from pipelines.reports.summary import summary_markdown
from pipelines.workflow.stages import Stages

PAGE = "README.md"
MADE = {
    "corpus": "the images and captions that were served",
    "download": "shards: `NNNNN.tar`, an index of each, and `manifest.json` with the outcome of every URL",
    "docfreq": "document frequencies: `document_frequency.parquet`, its summary and pictures",
    "pretrain": "a trained method: `checkpoints/`, its settings, `masks.png`",
    "evaluate": "its metrics: `manifest.json`",
    "step_times": "seconds per step of the methods, measured in turn",
    "report": "`report.html`, all tables and pictures in one page; the same as Markdown, the numbers as JSON",
}
PICTURES = {
    "report.png": ("report", "The methods side by side"),
    "masks.png": ("report", "What each method hides from the encoder"),
    "rank_frequency.png": ("docfreq", "How often tokens occur in captions"),
}


def write_page(folder: Path, comparison: Comparison, stages: Stages, *, browse: str) -> None:
    """Write `README.md` into the folder of a pipeline's results: table, pictures, and where the rest is.

    Args:
        browse: the command that shows the experiments.
    """
    folders = {name: stage.relative_to(folder) for name, stage in stages.folders.items()}
    pictures = [
        f"## {title}\n\n![{title}]({folders[stage] / file})\n"
        for file, (stage, title) in PICTURES.items()
        if (folder / folders[stage] / file).is_file()
    ]
    listed = [f"- [`{name}`]({path}): {MADE[name.partition('/')[0]]}" for name, path in folders.items()]
    files = (
        "[`pipeline.yaml`](pipeline.yaml) and [`requirements.txt`](requirements.txt) say what it was run by."
    )
    sections = [
        f"# {comparison.name}\n\n{summary_markdown(comparison)}",
        *pictures,
        "## Everything that was made\n\n" + "\n".join(listed) + "\n",
        f"{files}\n\nBrowse settings, curves, checkpoints and lineage in MLflow: `{browse}`\n",
    ]
    (folder / PAGE).write_text("\n".join(sections))
