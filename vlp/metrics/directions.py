"""Which way a metric is good."""

LESS_IS_BETTER = ("loss", "median_rank")
"""Ends of the names of metrics that are the better the less they are; of all others it is the more."""


def is_less_better(metric: str) -> bool:
    """Whether a metric, or an end of its interval, is the better the less it is."""
    return metric.removesuffix("_low").removesuffix("_high").endswith(LESS_IS_BETTER)
