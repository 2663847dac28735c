"""The model card: what a model is, how it was trained, what was measured of it, and how it is loaded."""

import json
from dataclasses import asdict
from pathlib import Path

import vlp
from vlp.core.markdown import markdown_table
from vlp.run import RunConfig


def write_card(run: RunConfig, folder: Path, *, usage: str, results: str) -> None:
    """Write README.md, with the metadata that model hubs read."""
    (folder / "README.md").write_text(model_card(run, usage=usage, results=results))


def model_card(run: RunConfig, *, usage: str, results: str) -> str:
    """Method, settings, results and use of a model, as Markdown.

    The licence is left to who publishes the weights: it depends on the data.
    """
    papers = dict.fromkeys(paper for paper in (run.objective.paper, run.mask.paper) if paper)
    what = [
        ["method", run.name],
        ["objective", f"{run.objective.name}: {run.objective.formula}"],
        ["mask", f"{run.mask.name} {run.mask.formula}".strip()],
        ["papers", ", ".join(f"[{one}](https://arxiv.org/abs/{one})" for one in papers) or "-"],
        ["image encoder", f"{run.image_encoder.label}, {run.image_encoder.image_size} pixels"],
        ["tokenizer", run.tokenizer.name],
        ["made by", f"vlp {vlp.__version__}"],
    ]
    settings = json.dumps(asdict(run), indent=1, default=str)
    return "\n".join(
        [
            "---",
            "library_name: vlp",
            f"tags: [vlp, {run.objective.name}, {run.mask.name}-mask]",
            "license: unknown",
            "---",
            "",
            f"# {run.name}",
            "",
            markdown_table(["", ""], what),
            "The licence of the weights depends on the data that they were trained on: it is to be named.",
            "",
            "## Use",
            "",
            f"```python\n{usage}\n```",
            "",
            "Images are resized by their shorter side with a bicubic filter, cut to the middle square, and "
            f"normalized with the mean and deviation of {run.data.normalization}.",
            "",
            *(["## Results", "", results, ""] if results else []),
            "## Settings",
            "",
            f"```json\n{settings}\n```",
            "",
        ]
    )
