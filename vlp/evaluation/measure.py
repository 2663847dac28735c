"""A model to metrics: every protocol on every set that it reads."""

from collections.abc import Iterable

from vlp.evaluation.config import Measurement
from vlp.evaluation.embedder import Embedder
from vlp.metrics.outcomes import named_metrics


def measure(model: Embedder, measurements: Iterable[Measurement]) -> dict[str, float]:
    """Every metric, by `set/metric`."""
    objective = model.objective
    was_training = objective.training
    objective.eval()
    metrics = {}
    for data, protocol in measurements:
        outcomes = protocol.measure(model, data)
        metrics |= {f"{data.name}/{key}": value for key, value in named_metrics(outcomes).items()}
    objective.train(was_training)
    return metrics
