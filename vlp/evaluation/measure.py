"""A model to outcomes: every protocol on every set that it reads."""

from collections.abc import Iterable

from vlp.evaluation.config import Measurement
from vlp.evaluation.embedder import Embedder
from vlp.metrics.outcomes import Outcomes


def measure(model: Embedder, measurements: Iterable[Measurement]) -> dict[str, Outcomes]:
    """What becomes of every item of the sets, by `set/` and the first part of the names of metrics."""
    objective = model.objective
    was_training = objective.training
    objective.eval()
    outcomes = {}
    for data, protocol in measurements:
        found = protocol.measure(model, data)
        outcomes |= {f"{data.name}/{key}": value for key, value in found.items()}
    objective.train(was_training)
    return outcomes
