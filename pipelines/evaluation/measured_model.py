"""What a report says of a model that was measured."""

from dataclasses import dataclass
from typing import Self

from vlp.run import RunConfig


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """How a model was trained, in words: it can be read where the run's plug-ins are not installed."""

    name: str
    """Of its run."""
    method: str
    """The name that the runs of one method by other seeds share."""
    seed: int
    objective: str
    mask: str
    formula: str
    """What is learned; and M, what is hidden."""
    papers: tuple[str, ...]
    """Numbers on arXiv."""

    @classmethod
    def of(cls, run: RunConfig) -> Self:
        """The model of a run."""
        objective, mask = run.objective, run.mask
        return cls(
            name=run.name,
            method=run.name.removesuffix(f"-seed{run.seed}"),
            seed=run.seed,
            objective=objective.name,
            mask=mask.name,
            formula="; ".join(formula for formula in (objective.formula, mask.formula) if formula),
            papers=tuple(dict.fromkeys(paper for paper in (objective.paper, mask.paper) if paper)),
        )
